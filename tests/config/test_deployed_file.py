"""deploy/kio.toml is the documentation of the settings, and changes nothing."""

from __future__ import annotations

import re
from pathlib import Path

from kio.config import CATALOGUE, Settings, load

DEPLOYED = Path(__file__).parents[2] / "deploy" / "kio.toml"


def test_every_value_of_the_deployed_file_is_the_default() -> None:
    loaded = load(DEPLOYED, {}, {})
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {str(DEPLOYED)}


def test_the_deployed_file_explains_each_setting_above_it_with_the_catalogues_sentence() -> None:
    paragraphs = DEPLOYED.read_text(encoding="utf-8").split("\n\n")
    settings = [paragraph for paragraph in paragraphs if not paragraph.splitlines()[-1].startswith("#")]
    assert len(settings) == len(CATALOGUE)
    for setting, paragraph in zip(CATALOGUE, settings, strict=True):
        *comment, assignment = paragraph.strip().splitlines()
        assert assignment.partition(" = ")[0] == setting.name
        prose = re.sub(r"\s+", " ", " ".join(line.removeprefix("#") for line in comment)).strip()
        assert prose.startswith(setting.help), setting.name
        assert f"[{setting.range}]" in prose, setting.name
