set -m
{
sleep 0.3 & sleep 0.3 & wait; echo done
sleep 10 & p=$!; kill -STOP $p; sleep 0.2; ps -o stat= -p $p | cut -c1; kill -CONT $p; sleep 0.1; ps -o stat= -p $p | cut -c1; kill $p; wait $p; echo $?
set +m
for i in $(seq 50); do true & done; wait; echo all
seq 1000 | xargs -P4 -n 50 echo | wc -w
mkfifo p; (seq 100 > p &) ; awk '{s+=$1} END {print s}' p
} 2>&1 | grep -v -e Done -e Terminated -e Stopped
