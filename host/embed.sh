#!/bin/sh
# Writes an assembler file that holds every named file (.incbin) and a table {name, start, length} ended by a null name.
# The table is declared in host/embed.h. Usage: sh host/embed.sh FILE...
echo '    .section .rodata'
i=0
for f in "$@"; do
    printf 'n%d: .asciz "%s"\nd%d: .incbin "%s"\ne%d: .byte 0\n' $i "$f" $i "$f" $i
    i=$((i + 1))
done
echo '    .section .data.rel.ro,"aw"'
echo '    .balign 8'
echo '    .globl neap_embedded'
echo 'neap_embedded:'
i=0
for f in "$@"; do
    printf '    .quad n%d, d%d, e%d - d%d\n' $i $i $i $i
    i=$((i + 1))
done
echo '    .quad 0, 0, 0'
echo '    .section .note.GNU-stack,"",@progbits'
