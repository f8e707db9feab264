/*
 * checkpoint_leaving.c: domains that go, and whose they are
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: libvirt forgets a domain when it is undefined or, being transient, when it
 * ends.  A transient one may come back, here or on another host, so records stay unless
 * a client said that the checkpoints' metadata is to go: before that undefine is passed
 * on, the file "leaving" in the domain's folder gets the domain's definition.  Once
 * libvirt does not know the domain any more, by its reply, its event or when a daemon
 * starts, the bits are put into the images (checkpoint_leave.c), which the definition
 * names, and the folder goes.  A refused undefine leaves the file; it means nothing
 * while libvirt knows the domain, and goes when the domain runs as a persistent one.
 *
 * Hosts may share a store.  The file "host" says on which one the domain ran last: what
 * a host does with a definition that a migration left behind is no concern of the
 * checkpoints.
 */

#include "config.h"

#include <libvirt/virterror.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_file.h"
#include "checkpoint_heirs.h"
#include "checkpoint_leave.h"
#include "checkpoint_leaving.h"
#include "checkpoint_offline.h"
#include "checkpoint_xml.h"

#define MARK VIR_CHECKPOINT_STORE_LEAVING
#define HOST VIR_CHECKPOINT_STORE_HOST
#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif
#define MAX_BYTES (4 * 1024 * 1024)

static gchar *
virCheckpointLeavingPath(virCheckpointEngine *engine,
                         const gchar *uuid,
                         const gchar *name)
{
    return g_build_filename(virCheckpointStoreRoot(engine->store), uuid, name, NULL);
}

/* The contents of a file of the domain's folder, or NULL. */
static gchar *
virCheckpointLeavingRead(virCheckpointEngine *engine,
                         const gchar *uuid,
                         const gchar *name)
{
    g_autofree gchar *path = virCheckpointLeavingPath(engine, uuid, name);

    return g_file_test(path, G_FILE_TEST_EXISTS)
               ? virCheckpointFileRead(path, MAX_BYTES, NULL)
               : NULL;
}

gboolean
virCheckpointLeavingIsMarked(virCheckpointEngine *engine, const gchar *uuid)
{
    g_autofree gchar *path = virCheckpointLeavingPath(engine, uuid, MARK);

    return g_file_test(path, G_FILE_TEST_EXISTS);
}

gboolean
virCheckpointEngineIsElsewhere(virCheckpointEngine *engine, const gchar *uuid)
{
    g_autofree gchar *host = virCheckpointLeavingRead(engine, uuid, HOST);

    return host && engine->host && !g_str_equal(host, engine->host);
}

gboolean
virCheckpointLeavingIsAway(virCheckpointEngine *engine,
                           const virCheckpointDomainView *view)
{
    int state = VIR_DOMAIN_NOSTATE;
    int reason = 0;

    if (view->running)
        return FALSE;
    /* Libvirt says so until it is restarted; the file does as soon as it arrived. */
    return (virDomainGetState(view->domain, &state, &reason, 0) == 0 &&
            state == VIR_DOMAIN_SHUTOFF && reason == VIR_DOMAIN_SHUTOFF_MIGRATED) ||
           virCheckpointEngineIsElsewhere(engine, view->uuid);
}

/* Writes @text to file @name of the folder, unless it is there. */
static void
virCheckpointLeavingWrite(virCheckpointEngine *engine,
                          virCheckpointStoreDomain *store,
                          const gchar *name,
                          const gchar *text)
{
    g_autofree gchar *now =
        virCheckpointLeavingRead(engine, virCheckpointStoreDomainUuid(store), name);
    g_autoptr(GError) error = NULL;
    g_autofree gchar *path = NULL;

    if (g_strcmp0(now, text) == 0)
        return;
    path = virCheckpointStoreDomainPath(store, name, &error);
    if (!path || !virCheckpointFileWrite(path, text, &error))
        g_warning("domain %s: %s", virCheckpointStoreDomainUuid(store), error->message);
}

void
virCheckpointLeavingSettle(virCheckpointEngine *engine,
                           virCheckpointStoreDomain *store,
                           virCheckpointDomainView *view)
{
    g_autofree gchar *path = virCheckpointLeavingPath(engine, view->uuid, MARK);
    g_autoptr(GPtrArray) records = NULL;

    if (!view->running || !(records = virCheckpointStoreList(store, NULL)) ||
        records->len == 0)
        return;
    if (virCheckpointEngineIsElsewhere(engine, view->uuid))
        virCheckpointHeirsArrived(view->uuid);
    if (engine->host)
        virCheckpointLeavingWrite(engine, store, HOST, engine->host);
    if (!virCheckpointLeavingIsMarked(engine, view->uuid))
        return;
    /* A transient one ends with the disks that it has by then. */
    if (virDomainIsPersistent(view->domain) == 1)
        virCheckpointFileRemove(path, NULL);
    else
        virCheckpointLeavingWrite(engine, store, MARK, view->xml);
}

void
virCheckpointLeavingFirst(virCheckpointEngine *engine,
                          virCheckpointStoreDomain *store,
                          const virCheckpointDomainView *view)
{
    g_autofree gchar *path = virCheckpointLeavingPath(engine, view->uuid, HOST);

    if (engine->host && view->running && !g_file_test(path, G_FILE_TEST_EXISTS))
        virCheckpointLeavingWrite(engine, store, HOST, engine->host);
}

void
virCheckpointLeavingRanHere(virCheckpointEngine *engine,
                            virCheckpointStoreDomain *store,
                            const virCheckpointDomainView *view)
{
    g_autofree gchar *path = virCheckpointLeavingPath(engine, view->uuid, HOST);
    g_autoptr(GPtrArray) records = NULL;

    if (!engine->host || !view->running || g_file_test(path, G_FILE_TEST_EXISTS) ||
        !(records = virCheckpointStoreShare(store, NULL)) || records->len == 0)
        return;
    virCheckpointLeavingWrite(engine, store, HOST, engine->host);
}

void
virCheckpointEngineLeave(virCheckpointEngine *engine, const gchar *uuid)
{
    g_autoptr(virCheckpointOperation) operation =
        virCheckpointOperationBegin(engine, uuid, 0, NULL);

    /* What cannot be settled goes as well. */
    if (!operation)
        operation = virCheckpointOperationBegin(
            engine, uuid, VIR_CHECKPOINT_OPERATION_NO_SETTLE, NULL);
    if (operation)
        virCheckpointLeavingWrite(engine, operation->store, MARK, operation->view->xml);
}

/* The domain as it was when it was to go. */
static virCheckpointDomainView *
virCheckpointLeavingView(virCheckpointEngine *engine,
                         virConnectPtr conn,
                         const gchar *uuid)
{
    g_autoptr(virCheckpointDomainView) view = g_new0(virCheckpointDomainView, 1);
    g_autoptr(xmlDoc) doc = NULL;

    view->xml = virCheckpointLeavingRead(engine, uuid, MARK);
    if (!view->xml ||
        !(doc = virCheckpointXmlParse(view->xml, "(domain)", "domain", NULL)) ||
        !(view->disks = virCheckpointDomainParseDisks(view->xml, NULL)))
        return NULL;
    view->name = virCheckpointXmlString(xmlDocGetRootElement(doc), "string(./name)");
    view->uuid = g_strdup(uuid);
    view->conn = conn;
    return g_steal_pointer(&view);
}

/* An overlay that waits to be committed is told by its record alone. */
static gboolean
virCheckpointLeavingHasJobs(virCheckpointStoreDomain *store)
{
    g_autoptr(GPtrArray) jobs = virCheckpointStoreListJobs(store, NULL);

    return !jobs || jobs->len > 0;
}

/* Libvirt does not know the domain; its slot is held. */
static gboolean
virCheckpointLeavingFinish(virCheckpointEngine *engine,
                           virConnectPtr conn,
                           virCheckpointStoreDomain *store,
                           GError **error)
{
    const gchar *uuid = virCheckpointStoreDomainUuid(store);
    g_autoptr(virCheckpointDomainView) view =
        virCheckpointLeavingView(engine, conn, uuid);
    g_autoptr(virCheckpointSegments) segments = NULL;
    g_autoptr(GError) unread = NULL;

    if (virCheckpointLeavingHasJobs(store)) {
        g_warning("domain %s is gone, and a copy of a disk of it is unfinished: its "
                  "checkpoints are kept",
                  uuid);
        return TRUE;
    }
    if (view && (segments = virCheckpointSegmentsNew(store, view, &unread)))
        virCheckpointLeaveBits(segments, NULL);
    else
        g_warning("domain %s: no bits of its checkpoints are left in its images: %s",
                  uuid, unread ? unread->message : "its definition is not known");
    if (!virCheckpointFaultPoint("leave/left", error) ||
        !virCheckpointStoreDrop(store, error))
        return FALSE;
    g_info("domain %s: all checkpoints dropped", uuid);
    return TRUE;
}

/* Somebody else was faster, or there never was anything. */
static gboolean
virCheckpointLeavingIsEmpty(virCheckpointEngine *engine,
                            virCheckpointStoreDomain *store)
{
    g_autoptr(GPtrArray) records = virCheckpointStoreList(store, NULL);

    return records && records->len == 0 && !virCheckpointLeavingHasJobs(store) &&
           !virCheckpointLeavingIsMarked(engine, virCheckpointStoreDomainUuid(store));
}

static gboolean
virCheckpointLeavingGo(virCheckpointEngine *engine, const gchar *uuid, GError **error)
{
    virConnectPtr conn = virCheckpointEngineConnect(engine, error);
    g_autoptr(virCheckpointStoreDomain) store = NULL;
    virDomainPtr domain;
    gboolean ok;

    if (!conn)
        return FALSE;
    store = virCheckpointStoreDomainOpen(engine->store, uuid, error);
    ok = store != NULL;
    virCheckpointEngineUnsettle(engine, uuid);
    if (store && virCheckpointLeavingIsEmpty(engine, store))
        ok = virCheckpointStoreDrop(store, error);
    else if (store && (domain = virDomainLookupByUUIDString(conn, uuid)))
        virDomainFree(domain); /* defined again */
    else if (store && virGetLastErrorCode() != VIR_ERR_NO_DOMAIN)
        ok = virCheckpointDomainSetError(error);
    else if (store)
        ok = virCheckpointLeavingFinish(engine, conn, store, error);
    virCheckpointEngineDisconnect(engine, conn);
    return ok;
}

gboolean
virCheckpointLeavingVanished(virCheckpointEngine *engine,
                             const gchar *uuid,
                             GError **error)
{
    return !virCheckpointLeavingIsMarked(engine, uuid) ||
           virCheckpointEngineIsElsewhere(engine, uuid) ||
           virCheckpointLeavingGo(engine, uuid, error);
}

gboolean
virCheckpointEngineDrop(virCheckpointEngine *engine, const gchar *uuid, GError **error)
{
    return virCheckpointLeavingGo(engine, uuid, error);
}

/*
 * TRUE if @path is on a file system that no other host has mounted: then the guest,
 * which runs elsewhere, cannot be using it.  (Should both hosts be one machine QEMU's
 * lock tells.)
 */
static gboolean
virCheckpointLeavingIsLocal(const gchar *path)
{
    static const guint local[] = {EXT4_SUPER_MAGIC,  XFS_SUPER_MAGIC,
                                  BTRFS_SUPER_MAGIC, TMPFS_MAGIC,
                                  F2FS_SUPER_MAGIC,  OVERLAYFS_SUPER_MAGIC};
    struct statfs fs;
    gsize i;

    if (!path || statfs(path, &fs) < 0)
        return FALSE;
    for (i = 0; i < G_N_ELEMENTS(local); i++) {
        if ((guint)fs.f_type == local[i])
            return TRUE;
    }
    return FALSE;
}

/* Takes all that we made out of the top image of one disk. */
static gboolean
virCheckpointLeavingStrip(virCheckpointSegments *segments,
                          const gchar *target,
                          GError **error)
{
    int lock = virCheckpointStoreDomainLockFd(segments->store);
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    g_autoptr(GPtrArray) one = g_ptr_array_new();
    const virCheckpointNode *top;
    gboolean any = FALSE;
    guint i;

    g_ptr_array_add(one, (gpointer)target);
    if (!virCheckpointOfflineOpen(segments->view, one, TRUE, &lock, 1, error) ||
        !virCheckpointSegmentsRefresh(segments, error) ||
        !(top = virCheckpointSegmentsTop(segments, target, error)))
        return FALSE;
    for (i = 0; i < top->bitmaps->len; i++) {
        const virCheckpointBitmapInfo *info = g_ptr_array_index(top->bitmaps, i);

        if (!virCheckpointStoreJournalHas(segments->store, info->name))
            continue;
        virCheckpointTxnRemove(txn, top->name, info->name);
        any = TRUE;
    }
    return !any || virCheckpointTxnRun(txn, segments->view->monitor, error);
}

void
virCheckpointLeavingMigrated(virCheckpointEngine *engine, const gchar *uuid)
{
    g_autoptr(virCheckpointOperation) operation = virCheckpointOperationBegin(
        engine, uuid,
        VIR_CHECKPOINT_OPERATION_AWAY | VIR_CHECKPOINT_OPERATION_NO_SETTLE, NULL);
    g_autoptr(virCheckpointSegments) segments = NULL;
    guint i;

    if (!operation || operation->view->running ||
        !virCheckpointLeavingIsAway(engine, operation->view) ||
        !(segments = virCheckpointSegmentsNew(operation->store, operation->view, NULL)))
        return;
    for (i = 0; i < operation->view->disks->len; i++) {
        const virCheckpointDisk *disk = g_ptr_array_index(operation->view->disks, i);
        g_autofree gchar *target = g_strdup(disk->target);
        g_autoptr(GError) error = NULL;

        if (!virCheckpointSegmentsNewest(segments, target) ||
            !virCheckpointLeavingIsLocal(disk->source))
            continue;
        if (!virCheckpointLeavingStrip(segments, target, &error))
            g_debug("domain=%s disk=%s left as it is: %s", uuid, target,
                    error->message);
        virCheckpointOfflineClose(operation->view);
    }
}
