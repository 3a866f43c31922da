"""Operations that the queues of vthreads and of the standard library have in common."""


def getting(kind):
    def get():
        items = kind()
        yield items.get
        items.put("item")
        assert "item" == items.get_nowait()

    return get


def putting(kind):
    def put():
        items = kind(1)
        items.put(1)
        yield lambda: items.put(2)
        assert 1 == items.get_nowait()
        assert items.empty()

    return put
