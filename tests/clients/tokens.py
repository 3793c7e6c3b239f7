"""Tokens by PyJWT: FOLDER gets secret and jwks.json; prints a JSON object of tokens by name."""

import json
import sys
import time
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

folder = Path(sys.argv[1])
secret = "the secret of the tests, of at least sixty-four bytes for the sake of HS512"
now = int(time.time())
good = {"sub": "ann", "name": "Zoë", "aud": ["percore", "other"], "iss": "https://issuer.example", "exp": now + 3600}
keys = {"rsa": rsa.generate_private_key(65537, 2048), "ec": ec.generate_private_key(ec.SECP256R1())}
public = [RSAAlgorithm.to_jwk(keys["rsa"].public_key(), as_dict=True) | {"kid": "rsa", "use": "sig"},
          ECAlgorithm.to_jwk(keys["ec"].public_key(), as_dict=True) | {"kid": "ec", "alg": "ES256"}]
(folder / "secret").write_text(secret + "\n")
(folder / "jwks.json").write_text(json.dumps({"keys": public}))


def hs(claims, algorithm="HS256", key=secret):
    return jwt.encode(claims, key, algorithm=algorithm)


tokens = {algorithm: hs(good, algorithm) for algorithm in ("HS256", "HS384", "HS512")}
for algorithm in ("RS256", "RS384", "RS512", "PS256"):
    tokens[algorithm] = jwt.encode(good, keys["rsa"], algorithm=algorithm, headers={"kid": "rsa"})
tokens["ES256"] = jwt.encode(good, keys["ec"], algorithm="ES256", headers={"kid": "ec"})
tokens["expired"] = hs(good | {"exp": now - 60})
tokens["early"] = hs(good | {"nbf": now + 60})
tokens["audience"] = hs(good | {"aud": "another"})
tokens["issuer"] = hs(good | {"iss": "https://elsewhere.example"})
tokens["forged"] = hs(good, key=secret[::-1])
tokens["none"] = jwt.encode(good, None, algorithm="none")
tokens["kid"] = jwt.encode(good, keys["rsa"], algorithm="RS256", headers={"kid": "another"})
tokens["later"] = hs(good, key="the secret that is used later, of at least thirty-two bytes")
print(json.dumps(tokens))
