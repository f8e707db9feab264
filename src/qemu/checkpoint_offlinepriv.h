/*
 * checkpoint_offlinepriv.h: inside the opening of disks of a guest that is off
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_OFFLINEPRIV_H
#define VIR_CHECKPOINT_OFFLINEPRIV_H

#include "checkpoint_offline.h"
#include "checkpoint_storage_argv.h"

/** A virCheckpointStorageVolumeFunc; @data: virConnectPtr. */
gboolean
virCheckpointOfflineVolume(const gchar *pool,
                           const gchar *volume,
                           gchar **poolXml,
                           gchar **path,
                           virStorageVolType *type,
                           gpointer data,
                           GError **error);

/** Fetches the secrets and finds the certificates that @disk's layers need; descriptors
 * go into @fds, too.  virCheckpointOfflineCloseFds() in any case. */
gboolean
virCheckpointOfflineSecrets(virConnectPtr conn,
                            virCheckpointStorageDisk *disk,
                            GArray *fds,
                            GError **error);
void
virCheckpointOfflineCloseFds(virCheckpointStorageDisk *disk);

#endif
