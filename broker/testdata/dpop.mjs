// An authorisation server (oidc-provider) and a resource server (oauth4webapi) that take tokens with proofs alone, and proofs
// with nonces alone (RFC 9449). Arguments: the directory of modules, and the origins that they are known by. It says in one
// line of JSON where it listens, and a refresh token that is bound to a key.
import * as crypto from 'node:crypto'
import * as http from 'node:http'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

console.info = console.warn = console.error // its one line of output is for who started it
const [modules, issuer, resource] = process.argv.slice(2)
const load = name => import(pathToFileURL(createRequire(modules + '/').resolve(name)))
const { default: Provider } = await load('oidc-provider')
const oauth = await load('oauth4webapi')
const jose = await load('jose')

const signing = await jose.generateKeyPair('ES256', { extractable: true })
const provider = new Provider(issuer, {
  jwks: { keys: [{ ...await jose.exportJWK(signing.privateKey), alg: 'ES256', use: 'sig', kid: 'k1' }] },
  clients: [
    { client_id: 'machine', client_secret: 'machine-secret-0123456789', grant_types: ['client_credentials'], response_types: [], redirect_uris: [],
      dpop_bound_access_tokens: true },
    { client_id: 'public', token_endpoint_auth_method: 'none', grant_types: ['authorization_code', 'refresh_token'], redirect_uris: ['https://localhost/done'],
      response_types: ['code'], application_type: 'web', dpop_bound_access_tokens: true },
  ],
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  scopes: ['openid', 'offline_access', 'read'],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    dPoP: { enabled: true, nonceSecret: crypto.randomBytes(32), requireNonce: () => true },
    resourceIndicators: {
      enabled: true,
      defaultResource: (ctx, client) => client.clientId === 'machine' ? resource : undefined,
      getResourceServerInfo: () => ({ scope: 'read', audience: resource, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } }),
    },
  },
  findAccount: (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  issueRefreshToken: async () => true,
  rotateRefreshToken: true,
})
provider.proxy = true
provider.on('server_error', (ctx, err) => console.error(err))

let nonce = crypto.randomUUID()
const seen = new Set()

// resourceServer answers whoever has a token, with a proof that was never seen, in which its own nonce stands.
const resourceServer = async (req, res) => {
  const refuse = (error) => {
    res.writeHead(401, { 'www-authenticate': `DPoP error="${error}", algs="ES256 EdDSA"`, 'dpop-nonce': nonce }).end(error)
  }
  const chunks = []
  for await (const chunk of req) chunks.push(chunk)
  try {
    const request = new Request(new URL(req.url, resource), { method: req.method, headers: Object.fromEntries(Object.entries(req.headers).filter(([n]) => !['host', 'connection', 'content-length'].includes(n))) })
    const claims = await oauth.validateJwtAccessToken(as, request, resource, { requireDPoP: true, [oauth.customFetch]: toProvider })
    const proof = jose.decodeJwt(req.headers.dpop)
    if (seen.has(proof.jti)) return refuse('invalid_dpop_proof')
    seen.add(proof.jti)
    if (proof.nonce !== nonce) return refuse('use_dpop_nonce')
    if (req.url.startsWith('/rs/rotate')) nonce = crypto.randomUUID()
    res.writeHead(200, { 'content-type': 'application/json', 'dpop-nonce': nonce })
    res.end(JSON.stringify({ client: claims.client_id, bound: claims.cnf.jkt, method: req.method, body: Buffer.concat(chunks).toString(), token: req.headers.authorization }))
  } catch (err) {
    console.error(err.message, err.cause ?? '')
    refuse('invalid_token')
  }
}

const server = http.createServer((req, res) => req.url.startsWith('/rs') ? resourceServer(req, res) : provider.callback()(req, res))
await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
const local = `http://127.0.0.1:${server.address().port}`
const toProvider = (url, options) => fetch(String(url).replace(issuer, local), { ...options, headers: { 'x-forwarded-proto': 'https', 'x-forwarded-host': new URL(issuer).host } })
const as = { issuer, jwks_uri: issuer + '/jwks' }

// A user who has logged in once, with a key of their own.
const held = await jose.generateKeyPair('ES256', { extractable: true })
const grant = new provider.Grant({ accountId: 'somebody', clientId: 'public' })
grant.addOIDCScope('openid offline_access')
const refresh = new provider.RefreshToken({
  accountId: 'somebody', client: await provider.Client.find('public'), grantId: await grant.save(), scope: 'openid offline_access', gty: 'authorization_code',
  jkt: await jose.calculateJwkThumbprint(await jose.exportJWK(held.publicKey)),
})
console.log(JSON.stringify({ address: server.address().port, refresh_token: await refresh.save(), dpop_key: await jose.exportPKCS8(held.privateKey) }))
