"""UCX for the native transports."""

factory: object

def version() -> str: ...
