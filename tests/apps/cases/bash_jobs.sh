{
set -m
sleep 0.3 & sleep 0.3 & jobs | awk '{print $2}'; wait; echo done
sleep 10 & kill -STOP %1; sleep 0.2; jobs %1 | awk '{print $2}'; kill -CONT %1; sleep 0.1; jobs %1 | awk '{print $2}'; kill %1; wait %1; echo $?
set +m
for i in $(seq 50); do true & done; wait; echo all
seq 1000 | xargs -P4 -n 50 echo | wc -w
mkfifo p; (seq 100 > p &) ; awk '{s+=$1} END {print s}' p
} 2>&1 | grep -v -e Done -e Terminated
