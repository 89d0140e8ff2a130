# Signs the requests that stand on standard input in JSON as Azure's own package does, and prints each one's Authorization.
import json, sys

from azure.core.pipeline import PipelineContext, PipelineRequest
from azure.core.rest import HttpRequest
from azure.storage.blob._shared.authentication import SharedKeyCredentialPolicy

for r in json.load(sys.stdin):
    request = HttpRequest(r["method"], r["url"], headers=r["headers"])
    SharedKeyCredentialPolicy(r["account"], r["key"]).on_request(PipelineRequest(request, PipelineContext(None)))
    print(request.headers["Authorization"].replace(" ", "_"))
