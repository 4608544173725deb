"""A user of Redis with the rights that the documentation names, and with one less."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from e2e.redis_server import redis_server
from e2e.test_redis_history import Histories
from tables import table

from h3trio.hub import HistoryError, RedisHistory
from h3trio.testing import check_history

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = (
    "+hello +select +info +config|get +subscribe +publish +eval +evalsha"
    " +time +exists +del"
    " +hset +hget +hgetall +hexists +hincrby +hdel"
    " +rpush +lrange +lrem +sadd +smembers +srem"
    " +xadd +xrange +xrevrange +xlen +xtrim +xdel"
    " +zadd +zcard +zscore +zincrby +zrange +zrangebyscore +zrevrangebyscore +zrevrangebylex"
    " +zpopmin +zrem"
)
RULE = f"hub on >secret resetchannels ~{{*}}:* &{{*}}:* {COMMANDS}"


async def test_the_documented_rights_are_enough(tmp_path: Path) -> None:
    """With them every rule of a history holds."""
    async with redis_server(tmp_path, user=[RULE]) as server:
        server.url = server.url.replace("redis://", "redis://hub:secret@")
        histories = Histories(server)
        await check_history(
            histories.make,
            make_small=histories.small,
            reopen=histories.share,
            share=histories.share,
        )


@table(
    "rule, named",
    [
        (RULE.replace("+xtrim ", ""), "XTRIM"),
        (RULE.replace("+zpopmin ", "").replace("+publish ", ""), "ZPOPMIN PUBLISH"),
        (RULE.replace("~{*}:*", "~{other}:*"), r"[Nn]o permissions.*begin with \{h3trio\}:"),
        (RULE.replace("&{*}:*", "&{other}:*"), "PUBLISH"),
        (RULE.replace("+evalsha", ""), "evalsha"),
        (RULE.replace("+info ", ""), "info"),
        (RULE.replace("secret", "other"), "WRONGPASS"),
    ],
)
async def test_a_missing_right_is_named(tmp_path: Path, rule: str, named: str) -> None:
    """Before anything is done; and no part of a change ever is."""
    async with redis_server(tmp_path, user=[rule]) as server:
        url = server.url.replace("redis://", "redis://hub:secret@")
        with pytest.raises(HistoryError, match=named):
            await RedisHistory(url).open()
