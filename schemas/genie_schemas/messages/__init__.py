"""Messages of the control service `genie.v1.Control`, version 1.0: JSON, strictly parsed.

A request is one message; a reply is an envelope `{"ok": …}` or `{"errors": [GenieError, …]}`.
Bulk bytes never ride here: messages carry digests, and DMAHandles of the data plane as the plain
JSON values that `DMAHandle.to_json` gives (checked by `DMAHandle.from_json` where they are used).

All numbers are integers, times milliseconds or microseconds as their names say. Only `OpenRequest`
and `OpenReply` tolerate unknown fields: they are what a newer peer says before a version is agreed.
"""

from genie_schemas.messages._base import MAX_MESSAGE, RUN_ID, SERVICE, Empty, Message
from genie_schemas.messages._calls import (
    CallRequestId,
    LinkCallRequest,
    OpenCallReply,
    OpenCallRequest,
)
from genie_schemas.messages._envelope import (
    decode,
    decode_errors,
    decode_reply,
    encode,
    encode_error,
    encode_reply,
)
from genie_schemas.messages._plans import (
    ChunkTarget,
    InstallReply,
    InstallRequest,
    MissingConstant,
    MissingReply,
    OfferedConstant,
    PlanRequest,
    PutReply,
    PutRequest,
    PutTarget,
    SealRequest,
)
from genie_schemas.messages._runs import (
    ActiveRun,
    CancelReply,
    CancelRequest,
    DeviceStatus,
    DialReply,
    DialRequest,
    ExpectReply,
    ExpectRequest,
    FetchRequest,
    PrepareReply,
    PrepareRequest,
    RecallReply,
    RecallRequest,
    RecordedOutput,
    RunReport,
    RunRequestId,
    StartRequest,
    StatusReply,
    WaitReply,
    WaitRequest,
)
from genie_schemas.messages._session import (
    DataEndpoint,
    DeviceInfo,
    OpenReply,
    OpenRequest,
    Pulse,
    SessionRequest,
)

__all__ = [
    "MAX_MESSAGE",
    "RUN_ID",
    "SERVICE",
    "ActiveRun",
    "CallRequestId",
    "CancelReply",
    "CancelRequest",
    "ChunkTarget",
    "DataEndpoint",
    "DeviceInfo",
    "DeviceStatus",
    "DialReply",
    "DialRequest",
    "Empty",
    "ExpectReply",
    "ExpectRequest",
    "FetchRequest",
    "InstallReply",
    "InstallRequest",
    "LinkCallRequest",
    "Message",
    "MissingConstant",
    "MissingReply",
    "OfferedConstant",
    "OpenCallReply",
    "OpenCallRequest",
    "OpenReply",
    "OpenRequest",
    "PlanRequest",
    "PrepareReply",
    "PrepareRequest",
    "Pulse",
    "PutReply",
    "PutRequest",
    "PutTarget",
    "RecallReply",
    "RecallRequest",
    "RecordedOutput",
    "RunReport",
    "RunRequestId",
    "SealRequest",
    "SessionRequest",
    "StartRequest",
    "StatusReply",
    "WaitReply",
    "WaitRequest",
    "decode",
    "decode_errors",
    "decode_reply",
    "encode",
    "encode_error",
    "encode_reply",
]
