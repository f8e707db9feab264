/*
 * checkpoint_heirs.c: to which files libvirt may move a disk with all of its bits
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a disk whose active bitmap was made in a file that is neither in the chain
 * any more nor anywhere else was moved by somebody's job, and a healthy bitmap is on
 * its top.  That is whole after a commit, a pull and a full copy, and after a shallow
 * copy of the very layer in which it was made.  It is short after a snapshot that
 * nobody looked at and a shallow copy of that overlay onto an image that had the rest:
 * nothing of what is left tells the one from the other.  So what is known beforehand is
 * recorded: the "heirs" of a segment whose bitmap was made in the top are the layers
 * below, where commits go, and the target of a copy that runs, since libvirt takes no
 * snapshot while one does.
 *
 * What happened since the last look is known from events, in memory.  When a copy is
 * ready the file in which the bitmap was made is opened: whoever deletes it after the
 * pivot does not take its bits away.  A pull or a commit by somebody else, or the guest
 * having been off, explains a file that is gone as long as no copy was seen.  Without
 * an explanation the changes are lost.
 */

#include "config.h"

#include <fcntl.h>
#include <unistd.h>

#include "checkpoint_file.h"
#include "checkpoint_heirs.h"

/** An event may come this much later than what it tells of is seen. */
#define EVENT_MS 2000
#define EVENT_STEP_MS 50

/** In place of a path: the target is no file of this host. */
#define NETWORK "network"

/** What was seen of a disk since the last look at it. */
enum {
    VIR_CHECKPOINT_SEEN_LOOK = 1 << 0, /* there was one, and events have come since */
    VIR_CHECKPOINT_SEEN_COPY = 1 << 1,
    VIR_CHECKPOINT_SEEN_LAYERS = 1 << 2, /* a commit or a pull */
    VIR_CHECKPOINT_SEEN_OFF = 1 << 3,    /* the guest was off, or on another host */
};

/** What is known of a disk since the last look. */
typedef struct virCheckpointHeirsEntry {
    guint seen;
    gchar *born; /* the file in which its active bitmap was made */
    int fd;      /* that file, opened when a copy was ready; or -1 */
} virCheckpointHeirsEntry;

/* "uuid/target" (of all disks: "uuid/") -> those. */
static GMutex virCheckpointHeirsLock;
static GHashTable *virCheckpointHeirsEntries;

static void
virCheckpointHeirsEntryFree(virCheckpointHeirsEntry *entry)
{
    if (entry->fd >= 0)
        close(entry->fd);
    g_free(entry->born);
    g_free(entry);
}

/* The lock is held.  NULL: there is none, unless @make. */
static virCheckpointHeirsEntry *
virCheckpointHeirsEntryOf(const gchar *uuid, const gchar *target, gboolean make)
{
    g_autofree gchar *key = g_strconcat(uuid, "/", target, NULL);
    virCheckpointHeirsEntry *entry;

    if (!virCheckpointHeirsEntries)
        virCheckpointHeirsEntries =
            g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                  (GDestroyNotify)virCheckpointHeirsEntryFree);
    entry = g_hash_table_lookup(virCheckpointHeirsEntries, key);
    if (entry || !make)
        return entry;
    entry = g_new0(virCheckpointHeirsEntry, 1);
    entry->fd = -1;
    g_hash_table_insert(virCheckpointHeirsEntries, g_steal_pointer(&key), entry);
    return entry;
}

static guint
virCheckpointHeirsSeen(const gchar *uuid, const gchar *target)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&virCheckpointHeirsLock);
    const virCheckpointHeirsEntry *entry =
        virCheckpointHeirsEntryOf(uuid, target, FALSE);

    if (!entry)
        entry = virCheckpointHeirsEntryOf(uuid, "", FALSE);
    return entry ? entry->seen : 0;
}

void
virCheckpointHeirsJobEvent(const gchar *uuid, const gchar *target, gint type)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&virCheckpointHeirsLock);
    virCheckpointHeirsEntry *entry = virCheckpointHeirsEntryOf(uuid, target, FALSE);

    if (entry)
        entry->seen |= type == VIR_DOMAIN_BLOCK_JOB_TYPE_COPY
                           ? VIR_CHECKPOINT_SEEN_COPY
                           : VIR_CHECKPOINT_SEEN_LAYERS;
}

void
virCheckpointHeirsHold(const gchar *uuid, const gchar *target)
{
    g_autofree gchar *path = NULL;
    virCheckpointHeirsEntry *entry;
    VIR_CHECKPOINT_AUTOFD int fd = -1;

    g_mutex_lock(&virCheckpointHeirsLock);
    entry = virCheckpointHeirsEntryOf(uuid, target, FALSE);
    if (entry && entry->fd < 0)
        path = g_strdup(entry->born);
    g_mutex_unlock(&virCheckpointHeirsLock);
    if (!path || !g_path_is_absolute(path) ||
        (fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)) < 0)
        return;
    g_mutex_lock(&virCheckpointHeirsLock);
    entry = virCheckpointHeirsEntryOf(uuid, target, FALSE);
    if (entry && entry->fd < 0 && g_strcmp0(entry->born, path) == 0) {
        entry->fd = fd;
        fd = -1;
    }
    g_mutex_unlock(&virCheckpointHeirsLock);
}

gchar *
virCheckpointHeirsHeld(const virCheckpointSegments *segments, const gchar *target)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&virCheckpointHeirsLock);
    const virCheckpointHeirsEntry *entry =
        virCheckpointHeirsEntryOf(segments->view->uuid, target, FALSE);

    return entry && entry->fd >= 0 ? g_strdup_printf("/proc/self/fd/%d", entry->fd)
                                   : NULL;
}

void
virCheckpointHeirsWasOff(const gchar *uuid)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&virCheckpointHeirsLock);
    GHashTableIter iter;
    gpointer key;
    gpointer entry;

    if (!virCheckpointHeirsEntries)
        return;
    g_hash_table_iter_init(&iter, virCheckpointHeirsEntries);
    while (g_hash_table_iter_next(&iter, &key, &entry)) {
        if (g_str_has_prefix(key, uuid))
            ((virCheckpointHeirsEntry *)entry)->seen |= VIR_CHECKPOINT_SEEN_OFF;
    }
}

void
virCheckpointHeirsArrived(const gchar *uuid)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&virCheckpointHeirsLock);

    virCheckpointHeirsEntryOf(uuid, "", TRUE)->seen = VIR_CHECKPOINT_SEEN_OFF;
}

void
virCheckpointHeirsEventsMissed(void)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&virCheckpointHeirsLock);

    if (virCheckpointHeirsEntries)
        g_hash_table_remove_all(virCheckpointHeirsEntries);
}

void
virCheckpointHeirsLooked(const virCheckpointSegments *segments,
                         const virCheckpointSegment *segment)
{
    const virCheckpointDisk *disk =
        virCheckpointDomainFindDisk(segments->view->disks, segment->target);
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&virCheckpointHeirsLock);
    virCheckpointHeirsEntry *entry =
        virCheckpointHeirsEntryOf(segments->view->uuid, segment->target, TRUE);

    entry->seen = VIR_CHECKPOINT_SEEN_LOOK;
    if (g_strcmp0(entry->born, segment->born) == 0 && disk && disk->copied)
        return; /* it may still pivot */
    if (entry->fd >= 0)
        close(entry->fd);
    entry->fd = -1;
    g_free(entry->born);
    entry->born = g_strdup(segment->born);
}

void
virCheckpointHeirsBegin(const virCheckpointSegments *segments,
                        const virCheckpointRecord *record)
{
    guint i;

    for (i = 0; segments->view->running && i < record->segments->len; i++)
        virCheckpointHeirsLooked(segments, g_ptr_array_index(record->segments, i));
}

void
virCheckpointHeirsFind(const virCheckpointSegments *segments,
                       const gchar *target,
                       const virCheckpointNode *top,
                       GPtrArray *heirs)
{
    const virCheckpointDisk *disk =
        virCheckpointDomainFindDisk(segments->view->disks, target);
    const virCheckpointNode *node = top;

    g_ptr_array_set_size(heirs, 0);
    if (!top)
        return;
    while ((node = virCheckpointGraphBacking(segments->graph, node))) {
        if (node->file)
            g_ptr_array_add(heirs, g_strdup(node->file));
    }
    if (disk && disk->copied)
        g_ptr_array_add(heirs, g_strdup(disk->copyTo ? disk->copyTo : NETWORK));
}

static gboolean
virCheckpointHeirsAreSame(const GPtrArray *one, const GPtrArray *other)
{
    guint i;

    for (i = 0; i < MIN(one->len, other->len); i++) {
        if (!g_str_equal(g_ptr_array_index(one, i), g_ptr_array_index(other, i)))
            return FALSE;
    }
    return one->len == other->len;
}

gboolean
virCheckpointHeirsNote(virCheckpointSegments *segments, GError **error)
{
    g_autoptr(GPtrArray) heirs = g_ptr_array_new_with_free_func(g_free);
    guint i;

    for (i = 0; segments->graph && i < segments->view->disks->len; i++) {
        const virCheckpointDisk *disk = g_ptr_array_index(segments->view->disks, i);
        virCheckpointRecord *record =
            virCheckpointSegmentsNewest(segments, disk->target);
        const virCheckpointNode *top =
            virCheckpointSegmentsFindTop(segments, disk->target);
        const virCheckpointSegment *segment =
            record ? virCheckpointRecordSegment(record, disk->target) : NULL;

        if (!segment || !top || record->state != VIR_CHECKPOINT_RECORD_READY ||
            !segment->born || g_strcmp0(segment->born, top->file) != 0)
            continue;
        virCheckpointHeirsFind(segments, disk->target, top, heirs);
        if (virCheckpointHeirsAreSame(segment->heirs, heirs))
            continue;
        record = virCheckpointSegmentsEdit(segments, record);
        virCheckpointSegmentSetNames(
            virCheckpointRecordSegment(record, disk->target)->heirs, heirs);
        if (!virCheckpointStoreSave(segments->store, record, error))
            return FALSE;
    }
    return TRUE;
}

/* A copy of ours has the disk: it knows where that goes. */
static gboolean
virCheckpointHeirsIsOurs(const virCheckpointSegments *segments, const gchar *target)
{
    g_autoptr(GPtrArray) jobs = virCheckpointStoreListJobs(segments->store, NULL);
    guint i;

    for (i = 0; jobs && i < jobs->len; i++) {
        const virCheckpointJobRecord *job = g_ptr_array_index(jobs, i);

        if (g_strcmp0(job->target, target) == 0)
            return TRUE;
    }
    return FALSE;
}

static gboolean
virCheckpointHeirsHas(const virCheckpointSegment *segment, const virCheckpointNode *top)
{
    gboolean path = top->file && g_path_is_absolute(top->file);
    guint i;

    for (i = 0; i < segment->heirs->len; i++) {
        const gchar *heir = g_ptr_array_index(segment->heirs, i);

        if (g_strcmp0(heir, top->file) == 0 || (!path && g_str_equal(heir, NETWORK)))
            return TRUE;
    }
    return FALSE;
}

gboolean
virCheckpointHeirsExplain(const virCheckpointSegments *segments,
                          const virCheckpointSegment *segment,
                          const virCheckpointNode *top)
{
    const gchar *uuid = segments->view->uuid;
    guint waitedMs;
    guint seen;

    if (virCheckpointHeirsHas(segment, top) ||
        virCheckpointHeirsIsOurs(segments, segment->target))
        return TRUE;
    seen = virCheckpointHeirsSeen(uuid, segment->target);
    for (waitedMs = 0; seen == VIR_CHECKPOINT_SEEN_LOOK && waitedMs < EVENT_MS;
         waitedMs += EVENT_STEP_MS) {
        g_usleep(EVENT_STEP_MS * 1000);
        seen = virCheckpointHeirsSeen(uuid, segment->target);
    }
    return (seen & (VIR_CHECKPOINT_SEEN_LAYERS | VIR_CHECKPOINT_SEEN_OFF)) != 0 &&
           (seen & VIR_CHECKPOINT_SEEN_COPY) == 0;
}
