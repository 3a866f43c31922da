"""A greenlet for each URL, at most `size` at once."""

from gevent import monkey

monkey.patch_all()

import requests  # noqa: E402 - gevent requires the patch first
import urllib3  # noqa: E402
from gevent.pool import Pool  # noqa: E402


def run(size, operations, watch, url):
    def get_alone():
        lengths.append(len(requests.get(url).content))

    def get_from_pool():
        lengths.append(len(pool.request("GET", url).data))

    lengths, pool = [], urllib3.PoolManager(maxsize=size, block=True)
    for figure, get in ("requests", get_alone), ("urllib3", get_from_pool):
        with watch(figure):
            group = Pool(size)
            for _ in range(operations):
                group.spawn(get)
            group.join(raise_error=True)
    return lengths.count(4_096) // 2
