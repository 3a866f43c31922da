"""Crawl a small site: each page spawns its linked pages into the same group, at most four run at once."""

import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urljoin
from urllib.request import urlopen

from vthreads import Mutex, ThreadGroup

LINKS = {
    "/": ["/animals", "/plants"],
    "/animals": ["/animals/cat", "/animals/dog", "/"],
    "/animals/cat": ["/animals/dog", "/animals"],
    "/animals/dog": ["/animals/cat"],
    "/plants": ["/plants/oak", "/animals"],
    "/plants/oak": ["/"],
}


class Site(BaseHTTPRequestHandler):
    """The crawled site."""

    def do_GET(self):
        """Answer with the page's links."""
        page = " ".join(f'<a href="{link}">{link}</a>' for link in LINKS[self.path])
        self.wfile.write(f"HTTP/1.0 200 OK\r\n\r\n{page}".encode())


def crawl(start):
    found = Mutex({start: []})

    def visit(url):
        with urlopen(url) as response:
            links = re.findall('href="([^"]*)"', response.read().decode())
        for link in links:
            target = urljoin(url, link)
            with found.lock() as pages:
                is_new = target not in pages
                pages.setdefault(target, []).append(url)
            if is_new:
                # A member's spawn does not wait for a permit: the child is queued.
                ThreadGroup.current.spawn(visit, target)

    with ThreadGroup("crawl", max_concurrency=4) as group:
        group.spawn(visit, start)
    with found.lock() as pages:
        return pages


with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server, ThreadGroup() as site:
    site.spawn(server.serve_forever, 0.05)
    root = f"http://127.0.0.1:{server.server_port}"
    for url, linked_from in sorted(crawl(root + "/").items()):
        print(f"{url.removeprefix(root):12} is linked from {len(linked_from)} pages")
    server.shutdown()
