"""`asyncio.run`."""

PROGRAM = """
import asyncio
async def main():
    done.append(1)
asyncio.run(main())
"""
