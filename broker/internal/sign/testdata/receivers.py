# Receives the deliveries that stand on standard input in JSON, as each service's own package has a receiver do, and prints "true"
# or "false" for each.
import json, sys
from urllib.parse import parse_qs

import stripe
from slack_bolt.middleware import RequestVerification
from slack_bolt.request import BoltRequest
from slack_bolt.response import BoltResponse
from standardwebhooks import Webhook
from twilio.request_validator import RequestValidator


class Form(dict):
    """Parameters as web frameworks hand them over."""

    getall = dict.__getitem__


def slack(d):
    response = RequestVerification(d["value"]).process(
        req=BoltRequest(body=d["content"], headers=d["headers"]), resp=BoltResponse(status=500), next=lambda: BoltResponse(status=200)
    )
    return response.status == 200


def stripe_webhook(d):
    try:
        return stripe.Webhook.construct_event(d["content"], d["headers"]["stripe-signature"], d["value"]).id == "evt_1"
    except stripe.SignatureVerificationError:
        return False


def standard(d):
    try:
        return Webhook(d["value"]).verify(d["content"], d["headers"]) is not None
    except Exception as e:
        return type(e).__name__ != "WebhookVerificationError"


def twilio_form(d):
    form = Form(parse_qs(d["content"], keep_blank_values=True))
    return RequestValidator(d["value"]).validate(d["url"], form, d["headers"]["x-twilio-signature"])


def twilio_json(d):
    return RequestValidator(d["value"]).validate(d["url"], d["content"], d["headers"]["x-twilio-signature"])


receivers = {
    "slack": slack,
    "stripe": stripe_webhook,
    "standard-webhooks": standard,
    "twilio": twilio_form,
    "twilio-json": twilio_json,
}
for delivery in json.load(sys.stdin):
    print("true" if receivers[delivery["preset"]](delivery) else "false")
