"""The client of Centrifugo's HTTP API for Python, unchanged: cent_api.py URL KEY. Prints what comes back, a line each."""

import sys

import cent


def main(url, key):
    client = cent.Client(url, key)
    result = client.publish(cent.PublishRequest(channel="a", data={"x": 1}, idempotency_key="k"))
    again = client.publish(cent.PublishRequest(channel="a", data={"x": 1}, idempotency_key="k"))
    print("publish", result.offset, len(result.epoch), again.offset)
    result = client.broadcast(cent.BroadcastRequest(channels=["a", "b"], data=2))
    print("broadcast", [one.result.offset for one in result.responses])
    result = client.history(cent.HistoryRequest(channel="a", limit=10))
    print("history", [one.data for one in result.publications], result.offset)
    print("presence", client.presence(cent.PresenceRequest(channel="a")).presence)
    stats = client.presence_stats(cent.PresenceStatsRequest(channel="a"))
    print("presence_stats", stats.num_clients, stats.num_users)
    print("channels", client.channels(cent.ChannelsRequest()).channels)
    nodes = client.info(cent.InfoRequest()).nodes
    print("info", [(one.name, one.num_clients) for one in nodes])
    for request, call in [
        (cent.SubscribeRequest(user="u", channel="a"), client.subscribe),
        (cent.UnsubscribeRequest(user="u", channel="a"), client.unsubscribe),
        (cent.DisconnectRequest(user="u", disconnect=cent.Disconnect(code=4500, reason="x")), client.disconnect),
        (cent.RefreshRequest(user="u", expired=True), client.refresh),
        (cent.HistoryRemoveRequest(channel="a"), client.history_remove),
    ]:
        call(request)
    requests = [cent.PublishRequest(channel="a", data=1), cent.PublishRequest(channel="c", data=1)]
    print("batch", [one.offset for one in client.batch(cent.BatchRequest(requests=requests)).replies])
    try:
        client.publish(cent.PublishRequest(channel="no:a", data=1))
    except cent.CentApiResponseError as error:
        print("error", error.code, error.message)
    try:
        cent.Client(url, "wrong").info(cent.InfoRequest())
    except cent.CentUnauthorizedError:
        print("unauthorized")


main(*sys.argv[1:])
