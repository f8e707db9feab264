/*
 * checkpoint_nbd_tls.h: which certificates libvirt's NBD disks use
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_NBD_TLS_H
#define VIR_CHECKPOINT_NBD_TLS_H

#include <glib.h>

/** What libvirt's qemu.conf says of TLS for NBD disks. */
typedef struct virCheckpointNbdTls {
    gboolean byDefault; /* also for a source that does not say */
    gchar *dir;         /* ca-cert.pem, client-cert.pem, client-key.pem */
    gchar *secretUuid;  /* libvirt's secret with the key's passphrase, or NULL */
} virCheckpointNbdTls;

/**
 * virCheckpointNbdTlsParse:
 * @text: of a qemu.conf; @pki: the folder of libvirt's own certificates ("/etc/pki")
 *
 * Pure but for a look whether @pki has a folder "libvirt-nbd".  Lines that are none of
 * ours are not judged.
 */
void
virCheckpointNbdTlsParse(const gchar *text, const gchar *pki, virCheckpointNbdTls *tls);

/** The same from the file that the stock daemon of our user reads; without one its
 * defaults. */
void
virCheckpointNbdTlsRead(virCheckpointNbdTls *tls);
void
virCheckpointNbdTlsClear(virCheckpointNbdTls *tls);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(virCheckpointNbdTls, virCheckpointNbdTlsClear)

#endif
