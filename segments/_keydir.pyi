class KeyDir:
    used: int
    allocated_bytes: int
    def __len__(self) -> int: ...
