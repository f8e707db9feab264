/*
 * checkpoint_wire.c: payloads of libvirt's RPC <-> structs
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The encoders themselves are rpcgen's, from checkpoint_protocol.x, with libtirpc.
 * Decoding is for looking only: what is passed on is always the original packet, byte
 * for byte, because both ends of libvirt tolerate padding and trailing bytes that a
 * re-encoding would lose.  What cannot be decoded is passed on as well, so that the
 * sender gets libvirt's own answer to it.
 *
 * Strings come out NUL-terminated; a NUL inside one ends it here as it does in libvirt.
 */

#include "config.h"

#include "checkpoint_wire.h"

#include <string.h>

gboolean
virCheckpointWireDecodeRaw(xdrproc_t proc,
                           const guint8 *payload,
                           gsize length,
                           gpointer out)
{
    gboolean good;
    XDR xdr;

    if (length > G_MAXUINT)
        return FALSE;
    xdrmem_create(&xdr, (char *)payload, (u_int)length, XDR_DECODE);
    good = proc(&xdr, out);
    xdr_destroy(&xdr);
    if (!good)
        xdr_free(proc, out);
    return good;
}

GBytes *
virCheckpointWireEncodeRaw(xdrproc_t proc, gconstpointer value)
{
    gsize length = xdr_sizeof(proc, (void *)value);
    g_autofree char *buf = NULL;
    gboolean good;
    XDR xdr;

    /* xdr_sizeof says 0 both for "cannot be encoded" and for an empty struct; ours are
     * never empty. */
    if (length == 0 || length > G_MAXUINT)
        return NULL;
    buf = g_malloc(length);
    xdrmem_create(&xdr, buf, (u_int)length, XDR_ENCODE);
    good = proc(&xdr, (void *)value);
    xdr_destroy(&xdr);
    if (!good)
        return NULL;
    return g_bytes_new_take(g_steal_pointer(&buf), length);
}

void
virCheckpointWireUuidFormat(const virCheckpointProtoUuid uuid,
                            gchar text[VIR_CHECKPOINT_UUID_TEXT])
{
    gsize i;

    for (i = 0; i < sizeof(virCheckpointProtoUuid); i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *text++ = '-';
        *text++ = "0123456789abcdef"[(guint8)uuid[i] >> 4];
        *text++ = "0123456789abcdef"[(guint8)uuid[i] & 15];
    }
    *text = '\0';
}

gboolean
virCheckpointWireUuidParse(const gchar *text, virCheckpointProtoUuid uuid)
{
    virCheckpointProtoUuid out = {0};
    gsize digits = 0;

    for (; *text; text++) {
        if (*text == '-' || g_ascii_isspace(*text))
            continue;
        if (!g_ascii_isxdigit(*text) || digits == 2 * sizeof(out))
            return FALSE;
        out[digits / 2] =
            (char)((guint8)out[digits / 2] << 4 | (guint)g_ascii_xdigit_value(*text));
        digits++;
    }
    if (digits != 2 * sizeof(out))
        return FALSE;
    memcpy(uuid, out, sizeof(out));
    return TRUE;
}

const gchar *
virCheckpointWireOptString(const virCheckpointProtoOptString text)
{
    return text ? *text : NULL;
}
