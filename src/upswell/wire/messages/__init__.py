"""What processes say to one another, as typed values; `codec.py` makes frames of them.

Tags are given once: 1–3, 19, 22 and 80 to both sides' messages, 10–49 and 60–99 to those between clients and the
server, 50–59 and 70–79 to those between containers and the server.
"""

# ruff: noqa: F403, F405 - one namespace, whichever room a message is in

from .apps import *
from .base import *
from .calls import *
from .containers import *
from .listings import *
from .objects import *
from .reports import *
from .server import *

AnyMessage = (
    Hello | Welcome | Bye | Release | Piece | Received
    | OpenApp | CloseApp | AttendApp | Declare | AppClosed
    | OfferFiles | MissingFiles | PutFile | Deploy | Rollback | Deployed | StopApp | Done | Resolve | Resolved
    | Submit | Spawned | LookAt | Restore | EndInputs | Cancel | Collect | AttendCall | Uncollect | Consumed
    | Accepted | Refused | Invited | Outputs | Failed | Chunks | CallDescribed
    | Inquire | Statistics | Watch | Progress | Log | DescribeGraph | CallGraph
    | List | Listed | StopContainer | ReadLogs | Logged | Unfollow
    | UseObject | Withdraw | ObjectAnswer
    | DescribeServer | ServerDescribed | BackUp | Denied
    | Load | Assign | TakeBack | CancelRange | Credit | Forget | Drain | Processed
    | Ready | StartFailed | Results | Failure | Yielded | Returned | Suspended | Resumed | Rejoin
)  # fmt: skip
