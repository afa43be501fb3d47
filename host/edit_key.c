/* edit_key.c: typed bytes to keys. Escape sequences arrive in any number of pieces, so this is a machine that is fed single bytes. Sequences
   that nobody needs are swallowed whole instead of ending up in the text. */
#include "host/edit_int.h"

/* How many bytes a UTF-8 character has after this first byte; -1 if it cannot begin one. */
static int utf8_rest(unsigned char c) {
    if (c < 0x80) return 0;
    if (c >= 0xC2 && c <= 0xDF) return 1;
    if (c >= 0xE0 && c <= 0xEF) return 2;
    if (c >= 0xF0 && c <= 0xF4) return 3;
    return -1;
}

/* The key of a finished sequence ESC [ ... final, ESC O final. */
static int sequence(edit_keys *k) {
    unsigned char final = k->seq[k->len - 1];
    int number = 0, modifier = 0, *into = &number;
    for (int i = 2; i < k->len - 1; i++) {
        if (k->seq[i] == ';') into = &modifier;
        else if (k->seq[i] >= '0' && k->seq[i] <= '9' && *into < 10000) *into = *into * 10 + (k->seq[i] - '0');
    }
    switch (final) {
    case 'A': return KEY_UP;
    case 'B': return KEY_DOWN;
    case 'C': return modifier > 1 ? KEY_WORD_RIGHT : KEY_RIGHT;
    case 'D': return modifier > 1 ? KEY_WORD_LEFT : KEY_LEFT;
    case 'H': return KEY_HOME;
    case 'F': return KEY_END;
    case '~':
        switch (number) {
        case 1:
        case 7: return KEY_HOME;
        case 4:
        case 8: return KEY_END;
        case 3: return KEY_DELETE;
        case 200: k->pasting = 1; return KEY_PASTE;
        case 201: k->pasting = 0; return KEY_PASTE_END;
        }
    }
    return KEY_NONE;
}

static int text_byte(edit_keys *k, unsigned char byte) {
    k->seq[0] = byte;
    k->len = 1;
    k->need = utf8_rest(byte);
    if (k->need > 0) return KEY_NONE;
    if (k->need < 0) { /* no UTF-8: shown and kept as the replacement character would lose the byte, so drop it */
        k->need = 0;
        k->len = 0;
        return KEY_NONE;
    }
    return KEY_TEXT;
}

int edit_key_next(edit_keys *k, unsigned char byte) {
    if (k->need > 0) { /* inside a character */
        if ((byte & 0xC0) == 0x80) {
            k->seq[k->len++] = byte;
            return --k->need == 0 ? KEY_TEXT : KEY_NONE;
        }
        k->need = 0; /* broken off: forget it, treat this byte by itself */
        k->len = 0;
    } else if (k->len > 0 && k->seq[0] == 27) { /* inside an escape sequence */
        if (k->len < (int)sizeof k->seq) k->seq[k->len++] = byte;
        if (k->len == 2) {
            if (byte == '[' || byte == 'O') return KEY_NONE;
            k->len = 0;
            if (byte == 27) {
                k->seq[0] = 27;
                k->len = 1;
                return KEY_NONE;
            }
            if (k->pasting) return text_byte(k, byte);
            return KEY_META | byte;
        }
        if (byte >= 0x40 && byte <= 0x7E) {
            int key = sequence(k);
            k->len = 0;
            return key;
        }
        if (byte < 0x20) k->len = 0; /* no sequence at all */
        return KEY_NONE;
    }
    if (byte == 27) {
        k->seq[0] = 27;
        k->len = 1;
        return KEY_NONE;
    }
    k->len = 0;
    if (k->pasting && (byte == '\r' || byte == '\n' || byte == '\t')) {
        k->seq[0] = byte == '\t' ? '\t' : '\n';
        k->len = 1;
        return KEY_TEXT;
    }
    if (byte < 32 || byte == 127) return k->pasting ? KEY_NONE : byte;
    return text_byte(k, byte);
}
