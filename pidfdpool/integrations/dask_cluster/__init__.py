"""The door for Dask: a pool of ours inside each dask worker. Users import it as `pidfdpool.dask`.

    client process                     scheduler         dask worker (a *node*)           workers of the node's pool
      executor    what users call        |                 |                                |
      requests    options -> requests    |                 |                                |
      submission  sends them       --->  dask's  ------->  node     runs them by a pool --> calls   makes the call
      futures     gets answers     <---  own     <-------           that `node_pool` has    |
      mapping     calls in chunks        |                 |                                |
                                       reruns

A request is an ordinary task of dask's whose function is a coroutine, so it runs on the event loop of the dask worker
and holds one of its threads' places. The call in it is a pickle that nobody opens but the worker of the pool that
makes the call (`payloads`). So what crashes, leaks or hangs, be it in `__setstate__`, is never the dask worker.

dask itself runs the tasks of a lost worker again. Here a call runs at most once, unless `retries` allows more. So a
plugin of the scheduler notes on each request which nodes it was lost on (`reruns`), and the next node reads that.

`plugin` has the pool for tasks that are submitted by dask itself, `preload` the same for `dask worker --preload`,
`cluster` the connection that is opened by address. In the client, everything that waits for dask runs in the loop of
the client's own thread. Nothing here knows how the pool works: it is used by its public names only.
"""
