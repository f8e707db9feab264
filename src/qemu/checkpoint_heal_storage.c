/*
 * checkpoint_heal_storage.c: a disk and a replica of it, open for comparing
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a storage daemon per side, as for guests that are off
 * (docs/internals/offline.md), each serving its disk over NBD on a socket that only we
 * can reach: it is bound by us, in the domain's folder, and its name is gone as soon as
 * our connections are made.  The path of the folder may be longer than a socket's
 * address; the descriptor of the folder has a short one.
 *
 * The replica's daemon also has a node without data, whose bitmap takes the bits of
 * what differs, so that they become a sidecar in the way of all others.
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_heal_storage.h"
#include "checkpoint_offline.h"
#include "checkpoint_storage_argv.h"
#include "checkpoint_xml.h"

#define EXPORT_DISK "disk"
#define EXPORT_BITS "bits"

/* A socket that one of the daemons listens on. */
typedef struct virCheckpointHealSocket {
    int folder; /* O_PATH */
    int fd;
    gchar *name;
    gchar *address; /* a short path */
} virCheckpointHealSocket;

static void
virCheckpointHealSocketClear(virCheckpointHealSocket *socket)
{
    if (socket->fd >= 0)
        close(socket->fd);
    if (socket->folder >= 0) {
        if (socket->name)
            unlinkat(socket->folder, socket->name, 0);
        close(socket->folder);
    }
    g_free(socket->name);
    g_free(socket->address);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(virCheckpointHealSocket, virCheckpointHealSocketClear)

static gboolean
virCheckpointHealSocketListen(virCheckpointHealSocket *out,
                              const gchar *folder,
                              GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    out->name = g_strdup_printf("heal-%08x.tmp", g_random_int());
    out->folder = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    out->address = g_strdup_printf("/proc/self/fd/%d/%s", out->folder, out->name);
    g_strlcpy(address.sun_path, out->address, sizeof(address.sun_path));
    if (out->folder >= 0)
        out->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (out->fd < 0 ||
        bind(out->fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(out->fd, 16) < 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_SYSTEM_ERROR,
                    "cannot make a socket in '%s': %s", folder, g_strerror(errno));
        return FALSE;
    }
    return TRUE;
}

gchar *
virCheckpointHealReplica(const gchar *xml, gchar **path, GError **error)
{
    g_autoptr(xmlDoc) doc =
        virCheckpointXmlParse(xml, "(disk_definition)", "disk", error);
    g_autoptr(GPtrArray) drop = NULL;
    g_autofree gchar *text = NULL;
    xmlNode *root;
    guint i;

    if (!doc)
        return NULL;
    root = xmlDocGetRootElement(doc);
    if (!virCheckpointXmlNode(root, "./source")) {
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_NO_SOURCE,
                            "the XML of the replica names no source");
        return NULL;
    }
    drop = virCheckpointXmlNodes(root, "./target | ./readonly | ./mirror");
    for (i = 0; drop && i < drop->len; i++) {
        xmlUnlinkNode(g_ptr_array_index(drop, i));
        xmlFreeNode(g_ptr_array_index(drop, i));
    }
    xmlUnsetProp(root, BAD_CAST "device");
    xmlNewProp(xmlNewChild(root, NULL, BAD_CAST "target", NULL), BAD_CAST "dev",
               BAD_CAST "replica");
    text = virCheckpointXmlNodeText(root);
    *path = virCheckpointXmlString(root, "string(./source/@file | ./source/@dev)");
    return g_strdup_printf("<domain><devices>%s</devices></domain>", text);
}

/* A daemon that has disk @target of @xml open read-only and listens.  @node: (out)
 * (transfer full): the disk's top. */
static virCheckpointMonitor *
virCheckpointHealServe(const virCheckpointDomainView *view,
                       const gchar *xml,
                       const gchar *target,
                       gboolean shared,
                       const virCheckpointHealSocket *socket,
                       gchar **node,
                       virCheckpointMap **map,
                       GError **error)
{
    g_autofree gchar *server = g_strdup_printf("addr.type=fd,addr.str=%d", socket->fd);
    const gchar *const argv[] = {"--nbd-server", server, NULL};
    virCheckpointOfflineService service = {.shared = shared, .argv = argv};
    g_autoptr(GPtrArray) targets = g_ptr_array_new();
    g_autoptr(GPtrArray) disks = NULL;
    g_autoptr(GArray) inherited = g_array_new(FALSE, FALSE, sizeof(int));
    g_autoptr(virCheckpointMonitor) monitor = NULL;
    g_autoptr(GError) failed = NULL;
    const virCheckpointStorageDisk *disk;

    g_ptr_array_add(targets, (gpointer)target);
    if (!(disks = virCheckpointStorageDisks(xml, targets, error)))
        return NULL;
    if (disks->len != 1) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "there is no disk '%s' that could be opened", target);
        return NULL;
    }
    disk = g_ptr_array_index(disks, 0);
    *node = g_strdup(disk->node);
    g_array_append_val(inherited, socket->fd);
    monitor =
        virCheckpointOfflineServe(view->conn, disks, FALSE, &service, inherited, error);
    if (!monitor)
        return NULL;
    *map = virCheckpointMapNew(disk->layers, &failed);
    if (failed)
        g_info("reading through a storage daemon: %s", failed->message);
    return g_steal_pointer(&monitor);
}

static gboolean
virCheckpointHealExport(virCheckpointMonitor *monitor,
                        const gchar *node,
                        const gchar *name,
                        gboolean writable,
                        GError **error)
{
    return virCheckpointMonitorDo(
        monitor, "block-export-add",
        virCheckpointJsonBuild("s:type", "nbd", "s:id", name, "s:node-name", node,
                               "s:name", name, "b:writable", writable, NULL),
        error);
}

/* The node without data and its bitmap. */
static gboolean
virCheckpointHealMakeBits(virCheckpointHealStorage *storage, GError **error)
{
    virCheckpointMonitor *monitor = storage->monitors[1];
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    g_autoptr(virCheckpointJson) reply = virCheckpointMonitorRun(
        monitor, "blockdev-add",
        virCheckpointJsonBuild("s:driver", "null-co", "s:node-name",
                               VIR_CHECKPOINT_HEAL_NODE, "u:size", storage->sizeBytes,
                               "b:read-zeroes", TRUE, NULL),
        error);

    virCheckpointTxnAdd(txn, VIR_CHECKPOINT_HEAL_NODE, VIR_CHECKPOINT_HEAL_BITMAP,
                        storage->granularity, 0);
    return reply && virCheckpointTxnRun(txn, monitor, error) &&
           virCheckpointHealExport(monitor, VIR_CHECKPOINT_HEAL_NODE, EXPORT_BITS, TRUE,
                                   error);
}

/* Both exist and are of one size. */
static gboolean
virCheckpointHealMeasure(virCheckpointHealStorage *storage,
                         gchar *const nodes[2],
                         GError **error)
{
    guint64 sizes[2] = {0, 0};
    guint side;

    for (side = 0; side < 2; side++) {
        g_autoptr(virCheckpointGraph) graph =
            virCheckpointGraphQuery(storage->monitors[side], error);
        const virCheckpointNode *node;

        if (!graph)
            return FALSE;
        node = virCheckpointGraphNode(graph, nodes[side]);
        sizes[side] = node ? node->sizeBytes : 0;
        for (; node && side == 0; node = virCheckpointGraphBacking(graph, node))
            storage->clusterBytes = MAX(storage->clusterBytes, node->clusterSize);
    }
    if (sizes[0] != sizes[1] || sizes[0] == 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "the replica has %" G_GUINT64_FORMAT
                    " bytes, the disk %" G_GUINT64_FORMAT,
                    sizes[1], sizes[0]);
        return FALSE;
    }
    storage->sizeBytes = sizes[0];
    return TRUE;
}

static gboolean
virCheckpointHealConnect(virCheckpointHealStorage *storage,
                         gchar *const nodes[2],
                         const virCheckpointHealSocket sockets[2],
                         GError **error)
{
    const virCheckpointScanExport disks[2] = {
        {sockets[0].address, EXPORT_DISK},
        {sockets[1].address, EXPORT_DISK},
    };
    const virCheckpointScanExport marks = {sockets[1].address, EXPORT_BITS};

    if (!virCheckpointHealMeasure(storage, nodes, error) ||
        !virCheckpointHealExport(storage->monitors[0], nodes[0], EXPORT_DISK, FALSE,
                                 error) ||
        !virCheckpointHealExport(storage->monitors[1], nodes[1], EXPORT_DISK, FALSE,
                                 error) ||
        !virCheckpointHealMakeBits(storage, error))
        return FALSE;
    storage->scan = virCheckpointScanOpen(
        disks, &marks, storage->maps, storage->sizeBytes, storage->granularity, error);
    return storage->scan != NULL;
}

virCheckpointHealStorage *
virCheckpointHealStorageOpen(virCheckpointStoreDomain *store,
                             const virCheckpointDomainView *view,
                             const gchar *target,
                             const gchar *replica,
                             guint64 granularity,
                             GError **error)
{
    g_autoptr(virCheckpointHealStorage) storage = g_new0(virCheckpointHealStorage, 1);
    g_auto(virCheckpointHealSocket) disk = {.folder = -1, .fd = -1};
    g_auto(virCheckpointHealSocket) other = {.folder = -1, .fd = -1};
    g_autofree gchar *inside = virCheckpointStoreDomainPath(store, "heal", error);
    g_autofree gchar *folder = inside ? g_path_get_dirname(inside) : NULL;
    g_autofree gchar *diskNode = NULL;
    g_autofree gchar *otherNode = NULL;

    storage->granularity = granularity;
    if (!folder || !virCheckpointHealSocketListen(&disk, folder, error) ||
        !virCheckpointHealSocketListen(&other, folder, error) ||
        !(storage->monitors[0] =
              virCheckpointHealServe(view, view->xml, target, TRUE, &disk, &diskNode,
                                     &storage->maps[0], error)))
        return NULL;
    if (!(storage->monitors[1] =
              virCheckpointHealServe(view, replica, "replica", FALSE, &other,
                                     &otherNode, &storage->maps[1], error))) {
        g_prefix_error(error, "the replica: ");
        return NULL;
    }
    {
        gchar *const nodes[2] = {diskNode, otherNode};
        virCheckpointHealSocket sockets[2] = {disk, other};

        if (!virCheckpointHealConnect(storage, nodes, sockets, error))
            return NULL;
    }
    return g_steal_pointer(&storage);
}

gboolean
virCheckpointHealStorageFreeze(virCheckpointHealStorage *storage, GError **error)
{
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();

    virCheckpointTxnDisable(txn, VIR_CHECKPOINT_HEAL_NODE, VIR_CHECKPOINT_HEAL_BITMAP);
    return virCheckpointTxnRun(txn, storage->monitors[1], error);
}

void
virCheckpointHealStorageFree(virCheckpointHealStorage *storage)
{
    guint side;

    if (!storage)
        return;
    virCheckpointScanFree(storage->scan);
    for (side = 0; side < 2; side++) {
        virCheckpointMapFree(storage->maps[side]);
        virCheckpointMonitorFree(storage->monitors[side]);
    }
    g_free(storage);
}
