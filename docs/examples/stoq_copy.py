"""Copy a file to another machine.

    python docs/examples/stoq_copy.py receive copy.bin            # prints ADDRESS NODE_ID
    python docs/examples/stoq_copy.py send file.bin ADDRESS NODE_ID

The sender dials a key: nobody else can take the file. The receiver takes it from whoever dials; a
`PeerVerifier` in place of `AcceptAll` would choose. The receiver's answer is the number of bytes.
"""

import sys
from pathlib import Path

import trio

from native.keys import SecretKey
from native.values import Algorithm, NodeId
from transport import AcceptAll, Endpoint, HelloOffer, Identity

HELLO = HelloOffer(chain_id=b"copy".ljust(32, b"\0"), chain_name="copy")
CHUNK_BYTES = 1_048_576


def endpoint(listen: str | None) -> Endpoint:
    identity = Identity(SecretKey.generate(Algorithm.FALCON_512))
    return Endpoint(identity, listen=listen, hello=HELLO, verifier=AcceptAll())


async def receive(target: Path, listen: str = "[::1]:0") -> None:
    server = endpoint(listen)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        print(server.address, server.identity.node_id.hex(), flush=True)
        connection = await server.accept()
        stream = await connection.accept_stream()
        size_bytes = 0
        with target.open("wb") as file:
            async for data in stream:
                size_bytes += file.write(data)
        await stream.send_all(size_bytes.to_bytes(8))
        await stream.send_eof()
        await connection.closed.wait()  # by the sender, once it has the answer
        nursery.cancel_scope.cancel()


async def send(source: Path, address: str, node_id: NodeId) -> None:
    client = endpoint(None)
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        connection = await client.dial(address, node_id)
        stream = await connection.open_stream()
        size_bytes = 0
        with source.open("rb") as file:
            while data := file.read(CHUNK_BYTES):
                await stream.send_all(data)
                size_bytes += len(data)
        await stream.send_eof()
        answer = b"".join([data async for data in stream])
        await client.close()
        nursery.cancel_scope.cancel()
    if int.from_bytes(answer) != size_bytes:
        raise SystemExit("the receiver did not get the whole file")


def main(words: list[str]) -> None:
    match words:
        case ["receive", target]:
            trio.run(receive, Path(target))
        case ["receive", target, listen]:
            trio.run(receive, Path(target), listen)
        case ["send", source, address, node_id]:
            trio.run(send, Path(source), address, NodeId(bytes.fromhex(node_id)))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
