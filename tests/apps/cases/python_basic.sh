cat > t.py <<'P'
import os, sys, subprocess, threading, multiprocessing, asyncio, mmap, sqlite3, ctypes, tempfile, signal, time, json, hashlib, select, socket, struct, fcntl, resource
print(subprocess.run(['echo', 'sub'], capture_output=True, text=True).stdout.strip())
print(subprocess.check_output('seq 5 | wc -l', shell=True).decode().strip())
p = subprocess.Popen(['cat'], stdin=subprocess.PIPE, stdout=subprocess.PIPE); print(p.communicate(b'x' * 200000)[0] == b'x' * 200000)
r = []; ts = [threading.Thread(target=lambda i=i: r.append(i)) for i in range(40)]; [t.start() for t in ts]; [t.join() for t in ts]; print(sorted(r) == list(range(40)))
lock = threading.Lock(); n = 0
def inc():
    global n
    for _ in range(2000):
        with lock: n += 1
ts = [threading.Thread(target=inc) for _ in range(8)]; [t.start() for t in ts]; [t.join() for t in ts]; print(n)
def sq(x): return x * x
if __name__ == '__main__':
    with multiprocessing.Pool(4) as pool: print(pool.map(sq, range(20)))
    q = multiprocessing.Queue(); pr = multiprocessing.Process(target=q.put, args=('hello',)); pr.start(); print(q.get()); pr.join()
    v = multiprocessing.Value('i', 0)
    def add(v):
        for _ in range(100):
            with v.get_lock(): v.value += 1
    ps = [multiprocessing.Process(target=add, args=(v,)) for _ in range(4)]; [x.start() for x in ps]; [x.join() for x in ps]; print(v.value)
    async def main():
        async def w(i): await asyncio.sleep(0.01 * (5 - i)); return i
        print(await asyncio.gather(*[w(i) for i in range(5)]))
        pr = await asyncio.create_subprocess_exec('echo', 'async', stdout=asyncio.subprocess.PIPE); o, _ = await pr.communicate(); print(o.decode().strip(), pr.returncode)
    asyncio.run(main())
    with tempfile.TemporaryFile() as f:
        f.write(b'a' * 10000); f.flush(); m = mmap.mmap(f.fileno(), 10000); m[5000:5003] = b'xyz'; f.seek(5000); m.flush(); print(f.read(3)); m.close()
    m = mmap.mmap(-1, 4096)
    if os.fork() == 0: m[:2] = b'ok'; os._exit(3)
    print(os.waitstatus_to_exitcode(os.wait()[1]), m[:2])
    db = sqlite3.connect('/tmp/x.db'); db.execute('create table t(a)'); db.executemany('insert into t values(?)', [(i,) for i in range(1000)]); db.commit(); print(db.execute('select sum(a) from t').fetchone()); db.close()
    libc = ctypes.CDLL('libc.so.6'); print(libc.getpid() == os.getpid(), libc.abs(-4))
    CB = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int)); arr = (ctypes.c_int * 5)(5, 3, 1, 4, 2); libc.qsort(arr, 5, 4, CB(lambda a, b: a[0] - b[0])); print(list(arr))
    got = []; signal.signal(signal.SIGALRM, lambda *a: got.append(1)); signal.setitimer(signal.ITIMER_REAL, 0.05); time.sleep(0.2); print(got)
    a, b = socket.socketpair(); a.send(b'pair'); print(b.recv(10)); r, w, x = select.select([b], [a], [], 0); print(len(r), len(w))
    e = select.epoll(); e.register(b.fileno(), select.EPOLLIN); a.send(b'1'); print(len(e.poll(1)))
    print(os.sched_getaffinity(0) != set(), resource.getrlimit(resource.RLIMIT_NOFILE)[0], os.cpu_count() > 0)
    fd = os.open('/tmp/l', os.O_CREAT | os.O_RDWR); fcntl.flock(fd, fcntl.LOCK_EX); fcntl.lockf(fd, fcntl.LOCK_UN)
    print(os.listdir('/proc/self/fd') != [], open('/proc/self/comm').read().strip(), os.readlink('/proc/self/exe'))
    print(hashlib.sha256(b'x').hexdigest()[:8], len(os.urandom(16)), json.dumps({'a': [1, 2]}))
    try: open('/nope')
    except FileNotFoundError as ex: print(ex)
    print(sum(len(f) for _, _, f in os.walk('/usr/lib/python3')) > 0); os.kill(os.getpid(), signal.SIGUSR1)
P
bash -c 'python3 t.py; echo exit $?' 2>/dev/null
