"""Executors: what computes a device's share of a plan. The only part of the runtime with torch.

    inprocess   one device in this process (the embedded runtime)
    worker      the executor process that `genie_runtime.supervisor` starts and watches
    device      steps of one device: constants, values, transfers, accounting, deadlines
    schedule    one entry point on one device at given sizes, resolved
    slots       one program as straight-line calls on numbered slots
    ops         operators and arguments of a plan as torch's
    backend     where tensors live: host memory, or a CUDA device (with CUDA graphs)

Importing this package does not import torch.
"""
