# Decodes the tokens that stand on standard input in JSON as PyJWT does, and prints their claims, or the error's name.
import json, sys

import jwt

for t in json.load(sys.stdin):
    try:
        claims = jwt.decode(t["token"], t["key"], algorithms=[t["alg"]], audience="https://api.example.org", issuer="me",
                            options={"require": ["exp", "iat", "nbf", "jti", "sub"]})
        print("ok:" + claims["req"] + ":" + jwt.get_unverified_header(t["token"])["kid"])
    except jwt.PyJWTError as e:
        print(type(e).__name__)
