/*
 * checkpoint_sidecar_nodes.c: sidecar files as nodes of a QEMU
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a command to QEMU takes half a millisecond at least, so several files are
 * opened by one and closed by one.  A node can be told to have another one below it
 * whatever its file's header says, so each sidecar is opened as the backing node of the
 * one before it.  Nobody reads through them: a bitmap belongs to a node, whatever is
 * below. Only the first is QEMU's user's; with it go all others, and the files below
 * them, and each writes its bitmaps as it closes.  (QEMU 7.2: tried with disks of
 * several sizes; deleting one in the middle is refused.)  A chain is kept short: each
 * node's name for itself describes all below it, so the cost grows with the square (add
 * and look, a file: 2.6 ms alone, 1 ms by 8, 2 ms by 32).
 *
 * Files are handed over as descriptors where the peer takes any, so that confinement
 * does not matter: one set a file, since a set has one descriptor a kind of access.
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint_enginepriv.h"
#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_sidecarpriv.h"

/* Files in a chain. */
#define CHAIN_LENGTH 8

typedef struct virCheckpointSidecarMember {
    gchar *node;
    gchar *bitmap;
    gchar *file; /* how QEMU opens it */
    guint64 set;
    gboolean hasSet;
    gchar *scratch; /* a path to be removed, or NULL */
} virCheckpointSidecarMember;

struct virCheckpointSidecarNodes {
    virCheckpointMonitor *monitor; /* borrowed */
    gboolean readOnly;
    guint32 id;
    GPtrArray *members; /* virCheckpointSidecarMember* */
    guint asked;        /* chains that QEMU was told to open: it may have the last one,
                           whatever        it answered */
    guint open;         /* those that it has */
};

static void
virCheckpointSidecarMemberFree(virCheckpointSidecarMember *member)
{
    if (member->scratch)
        unlink(member->scratch);
    g_free(member->scratch);
    g_free(member->file);
    g_free(member->node);
    g_free(member->bitmap);
    g_free(member);
}

virCheckpointSidecarNodes *
virCheckpointSidecarNodesNew(virCheckpointMonitor *monitor, gboolean readOnly)
{
    virCheckpointSidecarNodes *nodes = g_new0(virCheckpointSidecarNodes, 1);

    nodes->monitor = monitor;
    nodes->readOnly = readOnly;
    nodes->id = g_random_int();
    nodes->members =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointSidecarMemberFree);
    return nodes;
}

void
virCheckpointSidecarNodesFree(virCheckpointSidecarNodes *nodes)
{
    if (!nodes)
        return;
    virCheckpointSidecarNodesClose(nodes, NULL);
    g_ptr_array_unref(nodes->members);
    g_free(nodes);
}

/* Where the peer opens @path: a descriptor of ours if it takes any. */
static gchar *
virCheckpointSidecarHandOver(virCheckpointSidecarNodes *nodes,
                             virCheckpointSidecarMember *member,
                             const gchar *path,
                             GError **error)
{
    VIR_CHECKPOINT_AUTOFD int fd = -1;

    if (!virCheckpointMonitorHasFds(nodes->monitor))
        return g_strdup(path);
    fd = open(path, (nodes->readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "sidecar '%s': %s", path, g_strerror(errno));
        return NULL;
    }
    /* It may be there whatever the answer was. */
    member->hasSet = TRUE;
    if (!virCheckpointMonitorAddFd(nodes->monitor, fd, &member->set, error))
        return NULL;
    return g_strdup_printf("/dev/fdset/%" G_GUINT64_FORMAT, member->set);
}

gboolean
virCheckpointSidecarNodesAdd(virCheckpointSidecarNodes *nodes,
                             const gchar *path,
                             const gchar *bitmap,
                             gboolean scratch,
                             GError **error)
{
    virCheckpointSidecarMember *member = g_new0(virCheckpointSidecarMember, 1);

    g_assert(!nodes->asked);
    /* QEMU takes 31 bytes at most. */
    member->node = g_strdup_printf(VIR_CHECKPOINT_HELPER_PREFIX "%08x.%u", nodes->id,
                                   nodes->members->len);
    member->bitmap = g_strdup(bitmap);
    member->scratch = scratch ? g_strdup(path) : NULL;
    g_ptr_array_add(nodes->members, member);
    return (member->file = virCheckpointSidecarHandOver(nodes, member, path, error)) !=
           NULL;
}

/* @member above @backing (transfer full), or above nothing. */
static virCheckpointJson *
virCheckpointSidecarMemberNode(const virCheckpointSidecarNodes *nodes,
                               const virCheckpointSidecarMember *member,
                               virCheckpointJson *backing)
{
    g_autofree gchar *below = g_strconcat(member->node, "f", NULL);
    virCheckpointJson *file =
        virCheckpointJsonBuild("s:node-name", below, "s:driver", "file", "s:filename",
                               member->file, "b:read-only", nodes->readOnly, NULL);
    virCheckpointJson *node = virCheckpointJsonBuild(
        "s:node-name", member->node, "s:driver", "qcow2", "a:file", file, "b:read-only",
        nodes->readOnly, "a:backing", backing, NULL);

    /* What is written counts once we have synced the file ourselves. */
    if (!nodes->readOnly)
        virCheckpointJsonAdd(node, "cache",
                             virCheckpointJsonBuild("b:no-flush", TRUE, NULL));
    return node;
}

/* The members from @first on, as one node. */
static virCheckpointJson *
virCheckpointSidecarNodesChain(const virCheckpointSidecarNodes *nodes, guint first)
{
    virCheckpointJson *chain = virCheckpointJsonNewNull();
    guint i;

    for (i = MIN(first + CHAIN_LENGTH, nodes->members->len); i > first; i--)
        chain = virCheckpointSidecarMemberNode(
            nodes, g_ptr_array_index(nodes->members, i - 1), chain);
    return chain;
}

gboolean
virCheckpointSidecarNodesOpen(virCheckpointSidecarNodes *nodes, GError **error)
{
    g_assert(!nodes->asked && nodes->members->len > 0);
    while (nodes->open * CHAIN_LENGTH < nodes->members->len) {
        nodes->asked++;
        if (!virCheckpointMonitorDo(
                nodes->monitor, "blockdev-add",
                virCheckpointSidecarNodesChain(nodes, nodes->open * CHAIN_LENGTH),
                error))
            return FALSE;
        nodes->open++;
    }
    return TRUE;
}

gboolean
virCheckpointSidecarNodesClose(virCheckpointSidecarNodes *nodes, GError **error)
{
    gboolean ok = TRUE;
    guint i;

    for (i = 0; i < nodes->asked; i++) {
        const virCheckpointSidecarMember *first =
            g_ptr_array_index(nodes->members, i * CHAIN_LENGTH);
        gboolean open = i < nodes->open;

        ok = (virCheckpointMonitorDo(
                  nodes->monitor, "blockdev-del",
                  virCheckpointJsonBuild("s:node-name", first->node, NULL),
                  open && ok ? error : NULL) ||
              !open) &&
             ok;
    }
    nodes->asked = nodes->open = 0;
    for (i = 0; i < nodes->members->len; i++) {
        virCheckpointSidecarMember *member = g_ptr_array_index(nodes->members, i);

        if (member->hasSet)
            ok = virCheckpointMonitorRemoveFd(nodes->monitor, member->set,
                                              ok ? error : NULL) &&
                 ok;
        member->hasSet = FALSE;
    }
    return ok;
}

guint
virCheckpointSidecarNodesCount(const virCheckpointSidecarNodes *nodes)
{
    return nodes->members->len;
}

virCheckpointBitmapRef
virCheckpointSidecarNodesRef(const virCheckpointSidecarNodes *nodes, guint i)
{
    const virCheckpointSidecarMember *member = g_ptr_array_index(nodes->members, i);
    virCheckpointBitmapRef ref = {.node = member->node, .name = member->bitmap};

    return ref;
}
