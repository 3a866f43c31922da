"""A producer, three workers and a collector, connected by small channels, so that the slowest one sets the pace."""

from vthreads import Channel, ThreadGroup, sleep


def produce(numbers):
    for number in range(1, 21):
        numbers.send(number)  # parks while the channel is full
    numbers.close()


def square(numbers, squares):
    for number in numbers:  # ends when the channel is closed and empty
        sleep(0.001 * (number % 3))
        squares.send((number, number * number))


def collect(squares):
    return sorted(squares)


def main():
    numbers, squares = Channel(4), Channel()
    with ThreadGroup("pipeline") as pipeline:
        collected = pipeline.spawn(collect, squares)
        pipeline.spawn(produce, numbers)
        with ThreadGroup("workers") as workers:
            for _ in range(3):
                workers.spawn(square, numbers, squares)
        # All workers have ended here, so no more items can be sent.
        squares.close()
    result = collected.result()
    print(len(result), "squares, the last one:", *result[-1])
    print("their sum:", sum(squared for _, squared in result))


if __name__ == "__main__":
    main()
