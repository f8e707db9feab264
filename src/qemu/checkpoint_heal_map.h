/*
 * checkpoint_heal_map.h: where in its files the data of a disk is
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_HEAL_MAP_H
#define VIR_CHECKPOINT_HEAL_MAP_H

#include <glib.h>

typedef enum {
    VIR_CHECKPOINT_EXTENT_ZERO,
    VIR_CHECKPOINT_EXTENT_PLAIN, /* as it is in a file */
    VIR_CHECKPOINT_EXTENT_OTHER, /* compressed, say: not for us to read */
    VIR_CHECKPOINT_EXTENT_LAST
} virCheckpointExtentKind;

typedef struct virCheckpointExtent {
    guint64 offset; /* in the disk */
    guint64 length;
    virCheckpointExtentKind kind;
    int fd;     /* PLAIN: borrowed from the map */
    guint64 at; /* PLAIN: in that file */
} virCheckpointExtent;

/** The images of one disk, open for reading, whatever becomes of their names. */
typedef struct virCheckpointMap virCheckpointMap;

/**
 * virCheckpointMapNew:
 * @layers: GPtrArray of virCheckpointStorageLayer*, complete, top first
 *
 * Returns: (transfer full): NULL without an error when the images are not all plain
 * files or block devices in formats whose data is in them as it is.
 */
virCheckpointMap *
virCheckpointMapNew(GPtrArray *layers, GError **error);
void
virCheckpointMapFree(virCheckpointMap *map);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointMap, virCheckpointMapFree)

/** Returns: (transfer full): GArray of virCheckpointExtent, without gaps, for that part
 * of the disk.  Thread: any. */
GArray *
virCheckpointMapLook(const virCheckpointMap *map,
                     guint64 offset,
                     guint64 length,
                     GError **error);

#endif
