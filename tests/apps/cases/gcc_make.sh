mkdir proj; cd proj
for i in $(seq 60); do echo "int f$i(int x) { return x * $i + 1; }" > f$i.c; done
{ echo '#include <stdio.h>'; for i in $(seq 60); do echo "int f$i(int);"; done; echo 'int main(void) { long s = 0;'; for i in $(seq 60); do echo "s += f$i($i);"; done; echo 'printf("%ld\n", s); return 0; }'; } > main.c
printf 'OBJS=$(patsubst %%.c,%%.o,$(wildcard *.c))\nprog: $(OBJS)\n\tgcc -o $@ $^\n%%.o: %%.c\n\tgcc -O2 -c -o $@ $<\n' > Makefile
make -s -j4; ./prog; echo $?; make -q && echo uptodate; ar rcs l.a f1.o f2.o; nm l.a | grep -c T; gcc -shared -fPIC -o l.so f3.c f4.c && file l.so 2>/dev/null; size prog | tail -1 | awk '{print NF}'; gcc -static -o st main.c f*.c && ./st; gcc -g -O0 -fsanitize=undefined main.c f*.c -o ub && ./ub; objdump -d prog | grep -c '<f1>'; strip prog; ./prog
