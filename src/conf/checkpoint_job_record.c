/*
 * checkpoint_job_record.c: what the store keeps of one incremental mirror
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A job is a state, the table of moves between states, and what recovery needs to know
 * of the three images (source, overlay, target).  The record is written with the new
 * state before the side effects that lead there begin, so after a crash the state names
 * the step that may or may not have happened.  The record goes when the job has cleaned
 * up; there is no state for "gone".
 */

#include "config.h"

#include "checkpoint_job_record.h"

#include "checkpoint_error.h"
#include "checkpoint_recordpriv.h"

#include <string.h>

static const gchar *const virCheckpointJobStates[] = {
    [VIR_CHECKPOINT_JOB_PREPARING] = "preparing",
    [VIR_CHECKPOINT_JOB_OVERLAYING] = "overlaying",
    [VIR_CHECKPOINT_JOB_BULK] = "bulk",
    [VIR_CHECKPOINT_JOB_NATIVE] = "native",
    [VIR_CHECKPOINT_JOB_MIRRORING] = "mirroring",
    [VIR_CHECKPOINT_JOB_PIVOTING] = "pivoting",
    [VIR_CHECKPOINT_JOB_COMMITTING] = "committing",
    [VIR_CHECKPOINT_JOB_CLEANING] = "cleaning",
};
G_STATIC_ASSERT(G_N_ELEMENTS(virCheckpointJobStates) == VIR_CHECKPOINT_JOB_LAST);

static const gchar *const virCheckpointJobOutcomes[] = {
    [VIR_CHECKPOINT_JOB_UNDECIDED] = "undecided",
    [VIR_CHECKPOINT_JOB_COMPLETED] = "completed",
    [VIR_CHECKPOINT_JOB_FAILED] = "failed",
    [VIR_CHECKPOINT_JOB_CANCELED] = "canceled",
};
G_STATIC_ASSERT(G_N_ELEMENTS(virCheckpointJobOutcomes) ==
                VIR_CHECKPOINT_JOB_OUTCOME_LAST);

#define TO(state) (1U << VIR_CHECKPOINT_JOB_##state)

static const guint virCheckpointJobNext[] = {
    [VIR_CHECKPOINT_JOB_PREPARING] = TO(OVERLAYING) | TO(NATIVE) | TO(CLEANING),
    [VIR_CHECKPOINT_JOB_OVERLAYING] = TO(BULK) | TO(COMMITTING) | TO(CLEANING),
    [VIR_CHECKPOINT_JOB_BULK] = TO(MIRRORING) | TO(COMMITTING),
    [VIR_CHECKPOINT_JOB_NATIVE] = TO(OVERLAYING) | TO(CLEANING),
    [VIR_CHECKPOINT_JOB_MIRRORING] = TO(PIVOTING) | TO(COMMITTING),
    [VIR_CHECKPOINT_JOB_PIVOTING] = TO(MIRRORING) | TO(CLEANING) | TO(COMMITTING),
    [VIR_CHECKPOINT_JOB_COMMITTING] = TO(CLEANING),
    [VIR_CHECKPOINT_JOB_CLEANING] = TO(COMMITTING),
};
G_STATIC_ASSERT(G_N_ELEMENTS(virCheckpointJobNext) == VIR_CHECKPOINT_JOB_LAST);

const gchar *
virCheckpointJobStateToString(virCheckpointJobState state)
{
    g_assert(state < VIR_CHECKPOINT_JOB_LAST);
    return virCheckpointJobStates[state];
}

const gchar *
virCheckpointJobOutcomeToString(virCheckpointJobOutcome outcome)
{
    g_assert(outcome < VIR_CHECKPOINT_JOB_OUTCOME_LAST);
    return virCheckpointJobOutcomes[outcome];
}

gboolean
virCheckpointJobStateMayMove(virCheckpointJobState from, virCheckpointJobState to)
{
    g_assert(from < VIR_CHECKPOINT_JOB_LAST && to < VIR_CHECKPOINT_JOB_LAST);
    return (virCheckpointJobNext[from] & (1U << to)) != 0;
}

virCheckpointJobRecord *
virCheckpointJobRecordNew(void)
{
    return g_new0(virCheckpointJobRecord, 1);
}

static gpointer
virCheckpointJobRecordCopyPart(gconstpointer part, gpointer opaque)
{
    return g_strdup(part);
}

virCheckpointJobRecord *
virCheckpointJobRecordCopy(const virCheckpointJobRecord *job)
{
    virCheckpointJobRecord *copy = NULL;

    if (!job)
        return NULL;
    copy = virCheckpointJobRecordNew();
    *copy = *job;
    copy->id = g_strdup(job->id);
    copy->target = g_strdup(job->target);
    copy->error = g_strdup(job->error);
    copy->sinceId = g_strdup(job->sinceId);
    copy->since = g_strdup(job->since);
    copy->checkpointId = g_strdup(job->checkpointId);
    copy->checkpoint = g_strdup(job->checkpoint);
    copy->sourcePath = g_strdup(job->sourcePath);
    copy->overlayPath = g_strdup(job->overlayPath);
    copy->defined = g_strdup(job->defined);
    copy->destPath = g_strdup(job->destPath);
    copy->destFormat = g_strdup(job->destFormat);
    copy->destXml = g_strdup(job->destXml);
    copy->offlineSource = g_strdup(job->offlineSource);
    copy->offlineDest = g_strdup(job->offlineDest);
    copy->offlineLeft = g_strdup(job->offlineLeft);
    copy->destId = g_strdup(job->destId);
    copy->resumeId = g_strdup(job->resumeId);
    if (job->covered)
        copy->covered =
            g_ptr_array_copy(job->covered, virCheckpointJobRecordCopyPart, NULL);
    if (copy->covered)
        g_ptr_array_set_free_func(copy->covered, g_free);
    return copy;
}

void
virCheckpointJobRecordFree(virCheckpointJobRecord *job)
{
    if (!job)
        return;
    g_free(job->id);
    g_free(job->target);
    g_free(job->error);
    g_free(job->sinceId);
    g_free(job->since);
    g_free(job->checkpointId);
    g_free(job->checkpoint);
    g_free(job->sourcePath);
    g_free(job->overlayPath);
    g_free(job->defined);
    g_free(job->destPath);
    g_free(job->destFormat);
    g_free(job->destXml);
    g_free(job->offlineSource);
    g_free(job->offlineDest);
    g_free(job->offlineLeft);
    g_free(job->destId);
    g_free(job->resumeId);
    g_clear_pointer(&job->covered, g_ptr_array_unref);
    g_free(job);
}

/* Formatting */

/* A checkpoint that the job refers to; the id is unknown until it is made. */
static void
virCheckpointJobRecordFormatRef(GString *buf,
                                const gchar *element,
                                const gchar *id,
                                const gchar *name)
{
    if (!id && !name)
        return;
    g_string_append_printf(buf, "  <%s", element);
    if (id)
        virCheckpointXmlAppend(buf, " id='%s'", id);
    if (name)
        virCheckpointXmlAppend(buf, " name='%s'", name);
    g_string_append(buf, "/>\n");
}

static void
virCheckpointJobRecordFormatFile(GString *buf, const gchar *element, const gchar *path)
{
    if (!path)
        return;
    g_string_append_printf(buf, "  <%s", element);
    virCheckpointXmlAppend(buf, " path='%s'/>\n", path);
}

static void
virCheckpointJobRecordFormatDest(GString *buf, const virCheckpointJobRecord *job)
{
    g_string_append(buf, "  <dest");
    if (job->destPath)
        virCheckpointXmlAppend(buf, " path='%s'", job->destPath);
    if (job->destFormat)
        virCheckpointXmlAppend(buf, " format='%s'", job->destFormat);
    if (job->destCreated)
        g_string_append(buf, " created='yes'");
    if (job->destId)
        virCheckpointXmlAppend(buf, " file='%s'", job->destId);
    g_string_append(buf, "/>\n");
    if (job->destXml)
        virCheckpointRecordFormatText(buf, "destXml", job->destXml);
}

static void
virCheckpointJobRecordFormatOffline(GString *buf, const virCheckpointJobRecord *job)
{
    g_string_append(buf, "  <offline");
    if (job->offlineSource)
        virCheckpointXmlAppend(buf, " source='%s'", job->offlineSource);
    if (job->offlineDest)
        virCheckpointXmlAppend(buf, " dest='%s'", job->offlineDest);
    if (job->offlineLeft)
        virCheckpointXmlAppend(buf, " left='%s'", job->offlineLeft);
    g_string_append(buf, "/>\n");
}

gchar *
virCheckpointJobRecordFormat(const virCheckpointJobRecord *job)
{
    GString *buf = g_string_new("<virtcheckpointjob version='1'>\n");

    g_assert(job && job->id && job->target);

    virCheckpointXmlAppend(buf,
                           "  <id>%s</id>\n  <disk>%s</disk>\n  <state>%s</state>\n"
                           "  <outcome>%s</outcome>\n",
                           job->id, job->target,
                           virCheckpointJobStateToString(job->state),
                           virCheckpointJobOutcomeToString(job->outcome));
    if (job->error) {
        virCheckpointXmlAppend(buf, "  <errorCode>%d</errorCode>\n", job->errorCode);
        virCheckpointRecordFormatText(buf, "error", job->error);
    }
    if (job->finish)
        g_string_append(buf, "  <finish/>\n");
    if (job->verify)
        g_string_append(buf, "  <verify/>\n");
    if (job->endCheckpoints)
        g_string_append(buf, "  <endCheckpoints/>\n");
    if (job->native)
        g_string_append(buf, "  <native/>\n");
    if (job->full)
        g_string_append(buf, "  <full/>\n");
    if (job->aside)
        g_string_append(buf,
                        job->asideBegun ? "  <aside begun='yes'/>\n" : "  <aside/>\n");
    if (job->offline)
        virCheckpointJobRecordFormatOffline(buf, job);
    if (job->leaving)
        g_string_append(buf, "  <leaving/>\n");
    virCheckpointJobRecordFormatRef(buf, "since", job->sinceId, job->since);
    virCheckpointJobRecordFormatRef(buf, "checkpoint", job->checkpointId,
                                    job->checkpoint);
    virCheckpointJobRecordFormatFile(buf, "source", job->sourcePath);
    virCheckpointJobRecordFormatFile(buf, "overlay", job->overlayPath);
    virCheckpointJobRecordFormatFile(buf, "defined", job->defined);
    virCheckpointJobRecordFormatDest(buf, job);
    virCheckpointXmlAppend(
        buf,
        "  <flags>%u</flags>\n"
        "  <bandwidth unit='bytes/s'>%" G_GUINT64_FORMAT "</bandwidth>\n"
        "  <granularity unit='bytes'>%u</granularity>\n"
        "  <bufSize unit='bytes'>%" G_GUINT64_FORMAT "</bufSize>\n"
        "  <size unit='bytes'>%" G_GUINT64_FORMAT "</size>\n"
        "  <work unit='bytes'>%" G_GUINT64_FORMAT "</work>\n"
        "  <started unit='us'>%" G_GINT64_FORMAT "</started>\n",
        job->flags, job->bandwidthBytes, job->granularity, job->bufSize, job->sizeBytes,
        job->workBytes, job->startedUsec);
    if (job->resumeId)
        virCheckpointXmlAppend(buf, "  <resume id='%s'/>\n", job->resumeId);
    virCheckpointRecordFormatParts(buf, "covered", job->covered);
    g_string_append(buf, "</virtcheckpointjob>\n");
    return g_string_free(buf, FALSE);
}

/* Parsing */

static gboolean
virCheckpointJobRecordParseState(virCheckpointJobRecord *job,
                                 xmlNode *root,
                                 GError **error)
{
    g_autofree gchar *state = virCheckpointXmlString(root, "./state");
    g_autofree gchar *outcome = virCheckpointXmlString(root, "./outcome");
    gint number = -1;

    number =
        virCheckpointRecordEnum(virCheckpointJobStates, VIR_CHECKPOINT_JOB_LAST, state);
    if (number < 0)
        return virCheckpointRecordFail(error, "state");
    job->state = (virCheckpointJobState)number;
    number = virCheckpointRecordEnum(virCheckpointJobOutcomes,
                                     VIR_CHECKPOINT_JOB_OUTCOME_LAST, outcome);
    if (number < 0)
        return virCheckpointRecordFail(error, "outcome");
    job->outcome = (virCheckpointJobOutcome)number;
    return TRUE;
}

/* An unsigned number that must be there and at most @max. */
static gboolean
virCheckpointJobRecordNumber(
    xmlNode *root, const gchar *xpath, guint64 max, guint64 *out, GError **error)
{
    guint64 number = 0;

    if (!virCheckpointXmlUint64(root, xpath, &number) || number > max)
        return virCheckpointRecordFail(error, xpath + strlen("./"));
    *out = number;
    return TRUE;
}

static gboolean
virCheckpointJobRecordParseNumbers(virCheckpointJobRecord *job,
                                   xmlNode *root,
                                   GError **error)
{
    guint64 flags = 0;
    guint64 granularity = 0;
    guint64 started = 0;
    guint64 code = 0;

    if (!virCheckpointJobRecordNumber(root, "./bandwidth", G_MAXUINT64,
                                      &job->bandwidthBytes, error) ||
        !virCheckpointJobRecordNumber(root, "./bufSize", G_MAXUINT64, &job->bufSize,
                                      error) ||
        !virCheckpointJobRecordNumber(root, "./size", G_MAXUINT64, &job->sizeBytes,
                                      error) ||
        !virCheckpointJobRecordNumber(root, "./work", G_MAXUINT64, &job->workBytes,
                                      error) ||
        !virCheckpointJobRecordNumber(root, "./flags", G_MAXUINT, &flags, error) ||
        !virCheckpointJobRecordNumber(root, "./granularity", G_MAXUINT, &granularity,
                                      error) ||
        !virCheckpointJobRecordNumber(root, "./started", G_MAXINT64, &started, error))
        return FALSE;
    if (job->error &&
        !virCheckpointJobRecordNumber(root, "./errorCode", G_MAXINT, &code, error))
        return FALSE;
    job->flags = (guint)flags;
    job->granularity = (guint)granularity;
    job->startedUsec = (gint64)started;
    job->errorCode = (gint)code;
    return TRUE;
}

virCheckpointJobRecord *
virCheckpointJobRecordParse(const gchar *xml, GError **error)
{
    g_autoptr(xmlDoc) doc = virCheckpointRecordOpen(xml, "virtcheckpointjob", error);
    g_autoptr(virCheckpointJobRecord) job = virCheckpointJobRecordNew();
    xmlNode *root = NULL;

    if (!doc)
        return NULL;
    root = xmlDocGetRootElement(doc);
    job->id = virCheckpointXmlString(root, "./id");
    job->target = virCheckpointXmlString(root, "./disk");
    if (!virCheckpointRecordIdIsGood(job->id) || !job->target || !*job->target) {
        virCheckpointRecordFail(error, "id or disk");
        return NULL;
    }
    job->error = virCheckpointXmlString(root, "./error");
    job->finish = virCheckpointXmlNode(root, "./finish") != NULL;
    job->verify = virCheckpointXmlNode(root, "./verify") != NULL;
    job->endCheckpoints = virCheckpointXmlNode(root, "./endCheckpoints") != NULL;
    job->native = virCheckpointXmlNode(root, "./native") != NULL;
    job->full = virCheckpointXmlNode(root, "./full") != NULL;
    job->aside = virCheckpointXmlNode(root, "./aside") != NULL;
    job->asideBegun = virCheckpointXmlNode(root, "./aside[@begun='yes']") != NULL;
    job->offline = virCheckpointXmlNode(root, "./offline") != NULL;
    job->offlineSource = virCheckpointXmlString(root, "./offline/@source");
    job->offlineDest = virCheckpointXmlString(root, "./offline/@dest");
    job->offlineLeft = virCheckpointXmlString(root, "./offline/@left");
    job->leaving = virCheckpointXmlNode(root, "./leaving") != NULL;
    job->sinceId = virCheckpointXmlString(root, "./since/@id");
    job->since = virCheckpointXmlString(root, "./since/@name");
    job->checkpointId = virCheckpointXmlString(root, "./checkpoint/@id");
    job->checkpoint = virCheckpointXmlString(root, "./checkpoint/@name");
    job->sourcePath = virCheckpointXmlString(root, "./source/@path");
    job->overlayPath = virCheckpointXmlString(root, "./overlay/@path");
    job->defined = virCheckpointXmlString(root, "./defined/@path");
    job->destPath = virCheckpointXmlString(root, "./dest/@path");
    job->destFormat = virCheckpointXmlString(root, "./dest/@format");
    job->destCreated = virCheckpointXmlNode(root, "./dest[@created='yes']") != NULL;
    job->destXml = virCheckpointXmlString(root, "./destXml");
    job->destId = virCheckpointXmlString(root, "./dest/@file");
    job->resumeId = virCheckpointXmlString(root, "./resume/@id");
    if (virCheckpointXmlNode(root, "./covered"))
        job->covered = virCheckpointRecordParts(root, "./covered");
    if (!virCheckpointJobRecordParseState(job, root, error) ||
        !virCheckpointJobRecordParseNumbers(job, root, error))
        return NULL;
    return g_steal_pointer(&job);
}
