cat > t.js <<'J'
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const cp = require('child_process'), fs = require('fs'), os = require('os'), crypto = require('crypto'), zlib = require('zlib');
if (!isMainThread) { parentPort.postMessage(workerData * 2); } else (async () => {
  const w = n => new Promise((ok, bad) => { const k = new Worker(__filename, { workerData: n }); k.on('message', ok); k.on('error', bad); });
  console.log(await Promise.all([1, 2, 3, 4].map(w)));
  console.log(cp.execSync('echo child').toString().trim());
  await new Promise(ok => { const c = cp.spawn('sh', ['-c', 'cat; exit 3']); let o = ''; c.stdout.on('data', d => o += d); c.on('close', r => { console.log(o, r); ok(); }); c.stdin.end('stdin'); });
  await new Promise(ok => { const c = cp.fork(__dirname + '/c.js'); c.on('message', m => { console.log(m); c.disconnect(); }); c.on('exit', ok); c.send({ a: 1 }); });
  fs.writeFileSync('x', 'data'); console.log(fs.readFileSync('x', 'utf8'), (await fs.promises.stat('x')).size, fs.existsSync('nope'));
  console.log(crypto.createHash('md5').update('a').digest('hex'), zlib.gunzipSync(zlib.gzipSync('zip')).toString());
  const t = Date.now(); await new Promise(r => setTimeout(r, 50)); console.log(Date.now() - t >= 49);
  let s = 0; for (let i = 0; i < 3e6; i++) s += i % 7; console.log(s, os.platform(), os.arch());
  for (let i = 0; i < 20; i++) fs.mkdirSync('d/' + i, { recursive: true }); console.log(fs.readdirSync('d').length);
  const sab = new SharedArrayBuffer(4); console.log(Atomics.add(new Int32Array(sab), 0, 5));
  process.exitCode = 4;
})();
J
echo 'process.on("message", m => process.send({ got: m }));' > c.js
node t.js; echo "exit $?"; node -e 'throw new Error("boom")' 2>/dev/null; echo $?; node --version
