/*
 * checkpoint_storage_argv.h: a domain's disks as arguments of qemu-storage-daemon
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_STORAGE_ARGV_H
#define VIR_CHECKPOINT_STORAGE_ARGV_H

#include "checkpoint_json.h"

typedef enum {
    VIR_CHECKPOINT_STORAGE_FILE,
    VIR_CHECKPOINT_STORAGE_BLOCK,
    VIR_CHECKPOINT_STORAGE_NBD,
    VIR_CHECKPOINT_STORAGE_OPTIONS, /* another driver of QEMU's */
    VIR_CHECKPOINT_STORAGE_LAST
} virCheckpointStorageType;

/** The password of a login: a secret of libvirt's, read from a descriptor. */
typedef struct virCheckpointStorageSecret {
    gchar *uuid;  /* by uuid ... */
    gchar *usage; /* ... or by usage */
    gint fd;      /* or -1 */
} virCheckpointStorageSecret;

/** One image of a chain.  Plain data. */
typedef struct virCheckpointStorageLayer {
    virCheckpointStorageType type;
    gchar *path; /* file, block; of NBD over a Unix socket the socket */
    gchar *host; /* NBD over TCP; NULL: over a Unix socket */
    gchar *port;
    gchar *exportName;  /* NBD */
    gchar *format;      /* QEMU's driver: "qcow2", "raw", ...; NULL: not known yet */
    gboolean luks;      /* encrypted with LUKS, in qcow2 or by itself */
    gchar *secretUuid;  /* libvirt's secret with the passphrase, by uuid ... */
    gchar *secretUsage; /* ... or by usage */
    gint secretFd; /* descriptor that the daemon reads the passphrase from, or -1 */
    gchar *tls;    /* NBD: "yes", "no", or NULL: as libvirt's configuration says */
    gchar *tlsHostname; /* the name that the server's certificate must have, or NULL */
    gchar *tlsDir;      /* folder of certificates; NULL: without TLS */
    gint tlsKeyFd; /* descriptor with the passphrase of the key, or -1: it has none */
    virCheckpointJson *options;      /* of any other driver, "driver" among them */
    gboolean network;                /* options: behind the network */
    const gchar *authOption;         /* options: the one that names auth, or NULL */
    virCheckpointStorageSecret auth; /* to log in there */
    gboolean slice;                  /* only a part of that is the image */
    guint64 sliceOffset;
    guint64 sliceSize;
} virCheckpointStorageLayer;

/** A disk that can be opened. */
typedef struct virCheckpointStorageDisk {
    gchar *target;
    gchar *node;       /* name of the top format node */
    guint number;      /* place in the domain, from 0 */
    GPtrArray *layers; /* virCheckpointStorageLayer*, top first */
    gboolean complete; /* the last layer is known to have nothing below it */
    gboolean writable; /* the top layer is opened read-write whatever is asked for */
} virCheckpointStorageDisk;

void
virCheckpointStorageLayerFree(virCheckpointStorageLayer *layer);
void
virCheckpointStorageDiskFree(virCheckpointStorageDisk *disk);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointStorageLayer, virCheckpointStorageLayerFree)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointStorageDisk, virCheckpointStorageDiskFree)

/**
 * virCheckpointStorageDisks:
 * @xml: domain XML
 * @targets: GPtrArray of gchar*: the disks wanted; NULL: all
 *
 * The writable disks that have a medium, with as much of their chains as the XML says.
 * Pure.  A wanted disk of a kind that cannot be opened without its guest is
 * VIR_ERR_CONFIG_UNSUPPORTED naming the disk and the kind.  Volumes of storage pools
 * have been replaced by what they are (checkpoint_storage_volume.h).
 *
 * Returns: (transfer full): GPtrArray of virCheckpointStorageDisk*.
 */
GPtrArray *
virCheckpointStorageDisks(const gchar *xml, GPtrArray *targets, GError **error);

/**
 * virCheckpointStorageTarget:
 * @xml: a <disk> with nothing below it; @format: of its image
 * @number: one that no disk of the domain has
 *
 * A disk that is copied to: to be opened read-write.
 */
virCheckpointStorageDisk *
virCheckpointStorageTarget(const gchar *xml,
                           const gchar *format,
                           guint number,
                           GError **error);

/** Takes away the layers above the one with that path; FALSE if there is none. */
gboolean
virCheckpointStorageCutAbove(virCheckpointStorageDisk *disk, const gchar *path);

/**
 * virCheckpointStorageProbeFunc: what is in the header of @layer's image
 * @backing: (out) (transfer full): the name of the image below as the header has it;
 * NULL: none
 * @format: (out) (transfer full): that one's format as the header has it, or NULL
 *
 * May correct the type of @layer (a path can be a file or a block device), and fills
 * @layer's format in when it is NULL.
 */
typedef gboolean (*virCheckpointStorageProbeFunc)(virCheckpointStorageLayer *layer,
                                                  gchar **backing,
                                                  gchar **format,
                                                  gpointer data,
                                                  GError **error);

/** Completes the chains of all @disks by what their headers say.  Pure but for @probe.
 */
gboolean
virCheckpointStorageComplete(GPtrArray *disks,
                             virCheckpointStorageProbeFunc probe,
                             gpointer data,
                             GError **error);

/**
 * virCheckpointStorageArgv:
 * @writable: open the top layers read-write; the others are always read-only
 *
 * Returns: (transfer full): the arguments after the program's name, NULL-terminated: an
 * object for each secret, a blockdev for each node, in an order that QEMU can take.
 */
gchar **
virCheckpointStorageArgv(GPtrArray *disks, gboolean writable);

/** TRUE if an image lies behind the network: a daemon without one could not open it. */
gboolean
virCheckpointStorageNeedsNetwork(GPtrArray *disks);

#endif
