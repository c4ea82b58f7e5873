"""The rig: what the gateway costs, measured against others on one machine in one run. `python -m bench --help`.

    __main__        the command line
    rig/            the upstream and the load generator, in C; `Rig` starts them and puts load on an address
    processes       processes pinned to a core: their processor time, memory and end
    peers/          who is measured, one file each: how to install and start it, and how it is called
    parts           what is measured, one function each
    rounds          every part of every peer, interleaved, and remembered so that a run can be taken up again
    quick           the regression guard: ratios within one run, and instructions per call
    instructions    instructions counted by callgrind
    scale           cost over keys, models, connections, workers and hundreds of thousands of calls
    folding         how fast a database takes calls into the ledger, by the size of batches
    report, charts  medians, the table, JSON, SVG; `page` writes docs/performance.md from them

Nothing here is imported by the gateway, which is started like every other peer. Only `scale` and `folding` import a
part of it: what makes keys, and what folds.
"""
