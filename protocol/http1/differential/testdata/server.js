// Echoes every request as one JSON document in the field x-seen. Prints the port it listens on and ends with its input.
const http = require('http');
const server = http.createServer({ maxHeaderSize: 1 << 20, keepAliveTimeout: 60000 }, (req, res) => {
  const content = [];
  req.on('data', (b) => content.push(b));
  req.on('error', () => {});
  req.on('end', () => {
    const fields = [];
    for (let i = 0; i < req.rawHeaders.length; i += 2) fields.push([req.rawHeaders[i], req.rawHeaders[i + 1]]);
    const host = req.headers.host === undefined ? '' : req.headers.host;
    const seen = { method: req.method, target: req.url, host, fields, content: Buffer.concat(content).toString('latin1') };
    res.setHeader('x-seen', Buffer.from(JSON.stringify(seen)).toString('base64'));
    res.setHeader('content-length', 0);
    res.end();
  });
});
server.maxHeadersCount = 0;
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('end', () => process.exit(0)).resume();
