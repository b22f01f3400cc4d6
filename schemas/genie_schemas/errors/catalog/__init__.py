"""Error codes, one module an area: code → (title, exit code, text for `genie explain`).

GEN01xx spec · GEN02xx model and capture · GEN03xx plan · GEN04xx run · GEN05xx daemon, session,
authentication and machine · GEN06xx transfer. A code is never reused or renumbered.
"""
