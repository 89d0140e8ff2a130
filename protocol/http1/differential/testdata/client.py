"""Asks for /0 to /n-1 at a port and prints what each response says as one JSON document in a line."""

import http.client
import json
import sys

http.client._MAXHEADERS = 10000
port, n, methods = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]


def ask(i):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        c.request("HEAD" if methods[i] == "H" else "GET", "/%d" % i)
        r = c.getresponse()
        content = r.read()
    except (http.client.HTTPException, OSError, ValueError, OverflowError) as e:
        return {"id": i, "error": type(e).__name__}
    finally:
        c.close()
    return {
        "id": i,
        "status": r.status,
        "fields": [[k, str(v)] for k, v in r.getheaders()],
        "content": content.decode("latin-1"),
    }


for i in range(n):
    print(json.dumps(ask(i)))
