"""A virtual thread for each URL, at most `size` at once."""

import requests
import urllib3

import vthreads
from vthreads import ThreadGroup


def root(size, urls, url, watch):
    def get_alone():
        lengths.append(len(requests.get(url).content))

    def get_from_pool():
        lengths.append(len(pool.request("GET", url).data))

    lengths, pool = [], urllib3.PoolManager(maxsize=size, block=True)
    for figure, get in ("requests", get_alone), ("urllib3", get_from_pool):
        with watch(figure), ThreadGroup(max_concurrency=size) as group:
            for _ in range(urls):
                group.spawn(get)
    return lengths.count(4_096) // 2


def run(size, operations, watch, url):
    return vthreads.run(root, size, operations, url, watch)
