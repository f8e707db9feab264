/*
 * checkpoint_nbd_tls.c: which certificates libvirt's NBD disks use
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A network disk says that it wants TLS, never by which certificates: those are in
 * libvirt's qemu.conf (nbd_tls, nbd_tls_x509_cert_dir, default_tls_x509_cert_dir and
 * the two secrets), which no call shows.  So the file is read, as libvirt reads it:
 * NAME = VALUE, strings in double quotes, comments from '#'.
 *
 * Source: libvirt 9.0.0, src/qemu/qemu_conf.c (virQEMUDriverConfigSetDefaults).
 */

#include "config.h"

#include <string.h>
#include <unistd.h>

#include "checkpoint_nbd_tls.h"

#define VIR_CHECKPOINT_QEMU_CONF "/etc/libvirt/qemu.conf"
#define VIR_CHECKPOINT_PKI "/etc/pki"

void
virCheckpointNbdTlsClear(virCheckpointNbdTls *tls)
{
    g_clear_pointer(&tls->dir, g_free);
    g_clear_pointer(&tls->secretUuid, g_free);
}

/* The value of @name, without quotes; the last line that has it counts, as there. */
static gchar *
virCheckpointNbdTlsValue(gchar **lines, const gchar *name)
{
    gchar *found = NULL;
    guint i;

    for (i = 0; lines[i]; i++) {
        g_autofree gchar *line = g_strstrip(g_strdup(lines[i]));
        const gchar *at = line + strlen(name);
        const gchar *end;

        if (!g_str_has_prefix(line, name))
            continue;
        at += strspn(at, " \t");
        if (*at != '=')
            continue;
        at += 1;
        at += strspn(at, " \t");
        end = *at == '"' ? strchr(at + 1, '"') : at + strcspn(at, " \t#");
        if (!end)
            continue;
        g_free(found);
        at += *at == '"';
        found = g_strndup(at, (gsize)(end - at));
    }
    return found;
}

void
virCheckpointNbdTlsParse(const gchar *text, const gchar *pki, virCheckpointNbdTls *tls)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    g_autofree gchar *byDefault = virCheckpointNbdTlsValue(lines, "nbd_tls");
    g_autofree gchar *own = g_build_filename(pki, "libvirt-nbd", NULL);

    tls->byDefault = g_strcmp0(byDefault, "1") == 0;
    tls->dir = virCheckpointNbdTlsValue(lines, "nbd_tls_x509_cert_dir");
    if (!tls->dir && g_file_test(own, G_FILE_TEST_EXISTS))
        tls->dir = g_steal_pointer(&own);
    if (!tls->dir)
        tls->dir = virCheckpointNbdTlsValue(lines, "default_tls_x509_cert_dir");
    if (!tls->dir)
        tls->dir = g_build_filename(pki, "qemu", NULL);
    tls->secretUuid = virCheckpointNbdTlsValue(lines, "nbd_tls_x509_secret_uuid");
    if (!tls->secretUuid)
        tls->secretUuid =
            virCheckpointNbdTlsValue(lines, "default_tls_x509_secret_uuid");
}

void
virCheckpointNbdTlsRead(virCheckpointNbdTls *tls)
{
    g_autofree gchar *own =
        g_build_filename(g_get_user_config_dir(), "libvirt", "qemu.conf", NULL);
    const gchar *path = geteuid() == 0 ? VIR_CHECKPOINT_QEMU_CONF : own;
    g_autofree gchar *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        text = g_strdup("");
    virCheckpointNbdTlsParse(text, VIR_CHECKPOINT_PKI, tls);
}
