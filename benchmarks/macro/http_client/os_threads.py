"""A pool of `size` OS threads."""

from concurrent.futures import ThreadPoolExecutor

import requests
import urllib3

AT_MOST = 1_000


def run(size, operations, watch, url):
    def get_alone(_):
        return len(requests.get(url).content)

    def get_from_pool(_):
        return len(pool.request("GET", url).data)

    lengths, pool = [], urllib3.PoolManager(maxsize=size, block=True)
    for figure, get in ("requests", get_alone), ("urllib3", get_from_pool):
        with watch(figure), ThreadPoolExecutor(size) as executor:
            lengths += executor.map(get, range(operations))
    return lengths.count(4_096) // 2
