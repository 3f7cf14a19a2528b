"""Who may come in, and what they may do.

    passwords.py       a password as it is stored: scrypt, a salt for each user, the parameters beside it
    users.py           rights, users and their key prefixes; what operation needs which right
    users_file.py      the file they stand in: read and checked, or changed as one
    authentication.py  Access: names and passwords to users; who comes in without one
    verifier.py        the thread that checks passwords, so that a loop never waits for one
    guard.py           the pauses between failed tries of one peer

Never here: sockets and protocols. A door asks, and answers NotAuthenticated or NotPermitted itself. No password, nor
what is stored of one, is ever in a message, a log line or a repr.
"""

from kio.access.authentication import Access
from kio.access.guard import Guard, network
from kio.access.users import RIGHT_BY_OP, WHOLE_KEYSPACE_OPS, Right, User
from kio.access.verifier import Verifier

__all__ = ["RIGHT_BY_OP", "WHOLE_KEYSPACE_OPS", "Access", "Guard", "Right", "User", "Verifier", "network"]
