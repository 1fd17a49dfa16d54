echo one two | tr a-z A-Z | sed 's/ /-/'
cat <<EOF | sort -r | head -2
alpha
beta
gamma
EOF
trap 'echo got term' TERM; kill -TERM $$; echo after
trap 'echo leaving $?' EXIT
f() { local x=$1; echo $((x * 2)); }; f 21
for i in 1 2 3; do (exit $i); echo "status $?"; done
sleep 0.2 & p=$!; wait $p; echo "waited $?"
sleep 5 & p=$!; kill $p; wait $p; echo "killed $?"
(sleep 0.1; echo bg) & wait
set -o pipefail; false | true; echo "pipefail $?"
diff <(seq 3) <(seq 4); echo "diff $?"
echo ${BASH_VERSION%%.*} ; printf '%05d|%-5s|%x\n' 42 ab 255
read -r a b <<< "x y z"; echo "$b"
coproc cat; echo hi >&${COPROC[1]}; read -r l <&${COPROC[0]}; echo "coproc $l"
ulimit -n; umask; mkdir -p a/b/c; cd a/b/c; pwd; cd -; exec 3>out; echo three >&3; exec 3>&-; cat out
timeout 0.2 sleep 5; echo "timeout $?"; { bash -c 'kill -SEGV $$'; } 2>/dev/null; echo "segv $?"
exit 7
