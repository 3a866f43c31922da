"""boto3 against moto's server, which runs on OS threads of this process."""

import gc
import random

import pytest

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
moto_server = pytest.importorskip("moto.server", reason="moto's server is not installed")

import botocore.config  # noqa: E402  comes with boto3
import botocore.exceptions  # noqa: E402

import vthreads  # noqa: E402  a skipped module needs none of it
from vthreads import ThreadGroup  # noqa: E402

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def port():
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def client(port):
    """Make a client of a service, which is closed afterwards."""
    made = []

    def client(service, port=port, **options):
        config = botocore.config.Config(retries={"total_max_attempts": 1}, **options)
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        session = boto3.session.Session(**keys)
        made.append(session.client(service, endpoint_url=f"http://127.0.0.1:{port}", config=config))
        return made[-1]

    yield client
    for one in made:
        one.close()
    # The selectors that moto's server leaves behind.
    gc.collect()


def test_many_objects_at_once(run, client):
    def store_and_load(s3, number):
        s3.put_object(Bucket="bucket", Key=str(number), Body=b"%d" % number)
        return int(s3.get_object(Bucket="bucket", Key=str(number))["Body"].read())

    def root():
        s3 = client("s3", max_pool_connections=20)
        s3.create_bucket(Bucket="bucket")
        return list(vthreads.map(lambda number: store_and_load(s3, number), range(20)))

    assert list(range(20)) == run(root)


def test_many_wait_for_a_message_until_a_deadline(run, client):
    def root():
        sqs = client("sqs", max_pool_connections=20)
        url = sqs.create_queue(QueueName="silence")["QueueUrl"]
        with vthreads.move_on_after(0.5) as scope, ThreadGroup() as group:
            for _ in range(10):
                group.spawn(sqs.receive_message, QueueUrl=url, WaitTimeSeconds=2)
        assert scope.cancelled_caught
        return sqs.list_queues()["QueueUrls"] == [url]

    assert run(root)


def test_bodies_are_never_mixed_up_under_random_timeouts(run, client):
    def work(s3, number, chance):
        for _ in range(5):
            with vthreads.move_on_after(chance.uniform(0, 0.1)):
                assert b"%d" % number == s3.get_object(Bucket="mixed", Key=str(number))["Body"].read()

    def root():
        s3 = client("s3", max_pool_connections=3)
        s3.create_bucket(Bucket="mixed")
        for number in range(8):
            s3.put_object(Bucket="mixed", Key=str(number), Body=b"%d" % number)
        with ThreadGroup() as group:
            for number in range(8):
                group.spawn(work, s3, number, random.Random(number))
        return s3.get_object(Bucket="mixed", Key="3")["Body"].read()

    assert b"3" == run(root)


def test_a_server_that_goes_away_ends_every_request(run, client, port, proxy):
    def wait(sqs, url):
        with pytest.raises(botocore.exceptions.HTTPClientError):
            sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)

    def root():
        url = client("sqs").create_queue(QueueName="away")["QueueUrl"]
        with proxy(port) as server:
            sqs = client("sqs", server.port)
            with ThreadGroup() as group:
                for _ in range(5):
                    group.spawn(wait, sqs, url)
                vthreads.sleep(0.2)
                server.cut()
            with pytest.raises(botocore.exceptions.EndpointConnectionError):
                sqs.list_queues()

    run(root)
