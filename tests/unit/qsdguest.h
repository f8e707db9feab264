/*
 * qsdguest.h: a storage daemon that stands in for a guest's QEMU
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_TEST_QSDGUEST_H
#define VIR_CHECKPOINT_TEST_QSDGUEST_H

#include "checkpoint_domain.h"
#include "checkpoint_store.h"

#define QSD_GUEST_SIZE (8 * 1024 * 1024)
#define QSD_GUEST_CLUSTER 65536
#define QSD_GUEST_CLUSTERS (QSD_GUEST_SIZE / QSD_GUEST_CLUSTER)
#define QSD_GUEST_DISKS 2

/**
 * Disks vda and vdb of a domain of libvirt's test driver, with real qcow2 files,
 * bitmaps and transactions; only query-block is answered by the test.
 */
typedef struct QsdGuest {
    gchar *folder; /* temporary */
    virConnectPtr conn;
    virCheckpointDomainView view;
    virCheckpointMonitor *inner;
    virCheckpointStore *store;
    virCheckpointStoreDomain *slot;
} QsdGuest;

/** TRUE if the programs that it needs are there. */
gboolean
qsdGuestPossible(void);
QsdGuest *
qsdGuestNew(void);
void
qsdGuestFree(QsdGuest *guest);
/** Ends the storage daemon (cleanly) and starts it again on the same files. */
void
qsdGuestRestart(QsdGuest *guest);
/** Writes cluster @cluster of disk 0 (vda) or 1 (vdb). */
void
qsdGuestWrite(QsdGuest *guest, guint disk, guint cluster);
/** Number of nodes, without those of the disks themselves. */
guint
qsdGuestStrayNodes(QsdGuest *guest);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(QsdGuest, qsdGuestFree)

#endif
