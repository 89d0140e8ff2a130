// Asks for /0 to /n-1 at a port and prints what each response says as one JSON document in a line.
const http = require('http');
const [port, n, methods] = [Number(process.argv[2]), Number(process.argv[3]), process.argv[4]];
let next = 0;

function ask() {
  const id = next++;
  if (id >= n) return;
  let told = false;
  const tell = (result) => {
    if (told) return;
    told = true;
    process.stdout.write(JSON.stringify({ id, ...result }) + '\n');
    setImmediate(ask);
  };
  const fail = (err) => tell({ error: String((err && err.code) || err) });
  const req = http.request({ host: '127.0.0.1', port, path: '/' + id, method: methods[id] === 'H' ? 'HEAD' : 'GET', agent: false, maxHeaderSize: 1 << 20, timeout: 20000 }, (res) => {
    const content = [];
    res.on('data', (b) => content.push(b));
    res.on('error', fail);
    res.on('aborted', () => fail('aborted'));
    res.on('end', () => {
      if (!res.complete) return fail('incomplete');
      const fields = [];
      for (let i = 0; i < res.rawHeaders.length; i += 2) fields.push([res.rawHeaders[i], res.rawHeaders[i + 1]]);
      tell({ status: res.statusCode, fields, content: Buffer.concat(content).toString('latin1') });
      req.destroy();
    });
  });
  req.maxHeadersCount = 0;
  req.on('upgrade', (_, socket) => { socket.destroy(); fail('upgrade'); });
  req.on('timeout', () => req.destroy(new Error('timeout')));
  req.on('error', fail);
  req.on('close', () => fail('closed'));
  req.end();
}
for (let i = 0; i < 8; i++) ask();
