"""Five ways to write `download_all`: closures, the current group, a mutex around its value, futures, a bound."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

from vthreads import Mutex, ThreadGroup


class Site(BaseHTTPRequestHandler):
    """The downloaded site."""

    def do_GET(self):
        """Answer with a page that names its path."""
        self.wfile.write(f"HTTP/1.0 200 OK\r\n\r\npage {self.path}".encode())


def download(url):
    return urlopen(url).read().decode()


def with_closures(urls, pages):
    with ThreadGroup() as g:
        for url in urls:  # a child runs at once, up to its first wait, so it sees this `url`
            g.spawn(lambda: pages.update({url: download(url)}))


def in_the_current_group(urls, pages):
    for url in urls:
        ThreadGroup.current.spawn(lambda: pages.update({url: download(url)}))


def with_a_mutex(urls, store):
    def download_one(url):
        page = download(url)
        with store.lock() as pages:
            pages[url] = page

    with ThreadGroup() as g:
        for url in urls:
            g.spawn(download_one, url)


def with_futures(urls, **bound):
    with ThreadGroup(**bound) as g:
        futures = {url: g.spawn(download, url) for url in urls}
    return {url: f.result() for url, f in futures.items()}


ThreadingHTTPServer.request_queue_size = 100  # length of the accept queue; the default is 5
with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server, ThreadGroup() as site:
    site.spawn(server.serve_forever, 0.05)
    urls = [f"http://127.0.0.1:{server.server_port}/{number}" for number in range(20)]
    with_closures(urls, first := {})
    with ThreadGroup():
        in_the_current_group(urls, second := {})
    with_a_mutex(urls, third := Mutex({}))
    with third.lock() as pages:
        for result in (first, second, pages, with_futures(urls), with_futures(urls, max_concurrency=8)):
            print(len(result), "pages, the first:", min(result.values()), "the last:", max(result.values()))
    server.shutdown()
