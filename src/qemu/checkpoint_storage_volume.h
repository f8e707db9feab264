/*
 * checkpoint_storage_volume.h: disks that are volumes of libvirt's storage pools
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_STORAGE_VOLUME_H
#define VIR_CHECKPOINT_STORAGE_VOLUME_H

#include <glib.h>
#include <libvirt/libvirt.h>

/**
 * virCheckpointStorageVolumeFunc: what libvirt says of a volume
 * @poolXml: (out) (transfer full); @path, @type: (out): the volume's
 */
typedef gboolean (*virCheckpointStorageVolumeFunc)(const gchar *pool,
                                                   const gchar *volume,
                                                   gchar **poolXml,
                                                   gchar **path,
                                                   virStorageVolType *type,
                                                   gpointer data,
                                                   GError **error);

/**
 * virCheckpointStorageTranslate:
 * @xml: domain XML; @targets: GPtrArray of gchar*: the disks wanted; NULL: all
 *
 * Pure but for @look.  A volume of a kind that libvirt does not start a guest with is
 * VIR_ERR_CONFIG_UNSUPPORTED naming the disk and the kind.
 *
 * Returns: (transfer full): @xml with the sources of the wanted disks that are volumes
 * in the form that they have without a pool, as libvirt does it at a guest's start.
 */
gchar *
virCheckpointStorageTranslate(const gchar *xml,
                              GPtrArray *targets,
                              virCheckpointStorageVolumeFunc look,
                              gpointer data,
                              GError **error);

#endif
