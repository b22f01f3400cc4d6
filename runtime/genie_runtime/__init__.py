"""The thin runtime: `genied`, and the same node embedded in a process.

main, server, service      the daemon: command line, sockets, control service
embedded                   a node inside the caller's process
node, intake, dispatch     sessions, plans and constants, runs
run, share, mail           one run: its events, its devices' attempts, its bytes
ledger, outputs            what is durable
store, library, budget     constants, loaded plans, memory
pool, pages, slabs, arena  shared memory: regions, and the areas that hold them
supervisor, executors      the processes that compute
"""
