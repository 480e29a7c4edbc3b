"""Two nodes in one process: one sends back what it gets, the other checks who answered."""

import trio

from native.keys import SecretKey
from native.values import Algorithm
from transport import AcceptAll, Endpoint, HelloOffer, Identity

HELLO = HelloOffer(chain_id=b"echo".ljust(32, b"\0"), chain_name="echo")


def endpoint(listen: str | None) -> Endpoint:
    identity = Identity(SecretKey.generate(Algorithm.FALCON_512))
    return Endpoint(identity, listen=listen, hello=HELLO, verifier=AcceptAll())


async def echo(server: Endpoint) -> None:
    stream = await (await server.accept()).accept_stream()
    async for data in stream:
        await stream.send_all(data)
    await stream.send_eof()


async def main() -> bytes:
    server, client = endpoint("[::1]:0"), endpoint(None)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        await nursery.start(client.run)
        nursery.start_soon(echo, server)
        connection = await client.dial(server.address, server.identity.node_id)
        stream = await connection.open_stream()
        await stream.send_all(b"hello, post-quantum world")
        await stream.send_eof()
        answer = b"".join([data async for data in stream])
        nursery.cancel_scope.cancel()
    return answer


if __name__ == "__main__":
    print(trio.run(main).decode())
