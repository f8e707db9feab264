/*
 * checkpoint_gateway.h: accepts clients and connects them to the backend
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_GATEWAY_H
#define VIR_CHECKPOINT_GATEWAY_H

#include "checkpoint_client.h"
#include "checkpoint_listener.h"

typedef struct virCheckpointGateway virCheckpointGateway;

typedef struct virCheckpointGatewayConfig {
    const gchar *backend;  /* path of the backend's read-write socket */
    gboolean startSession; /* have a session's backend started when it is not there */
    guint maxClients;      /* more wait in the backlog */
    const virCheckpointClientHooks *hooks; /* or NULL */
    gpointer hooksData;
} virCheckpointGatewayConfig;

/**
 * virCheckpointGatewayNew:
 * @listener: borrowed, must live until virCheckpointGatewayStopAccepting()
 *
 * Accepts clients from now on.  Thread: main, as all functions here.
 */
virCheckpointGateway *
virCheckpointGatewayNew(const virCheckpointGatewayConfig *config,
                        virCheckpointListener *listener);

void
virCheckpointGatewayStopAccepting(virCheckpointGateway *gateway);
/** Takes no more packets from clients; answers still go out. */
void
virCheckpointGatewayDrain(virCheckpointGateway *gateway);
/** TRUE while an extension owes a client an answer. */
gboolean
virCheckpointGatewayIsBusy(virCheckpointGateway *gateway);
/** Ends all sessions, now. */
void
virCheckpointGatewayCloseClients(virCheckpointGateway *gateway);
/** After StopAccepting and CloseClients. */
void
virCheckpointGatewayFree(virCheckpointGateway *gateway);

/** Sessions, and clients being connected. */
guint
virCheckpointGatewayCountClients(const virCheckpointGateway *gateway);
/** Calls @func for each session. */
void
virCheckpointGatewayForeach(virCheckpointGateway *gateway,
                            void (*func)(virCheckpointClient *client, gpointer data),
                            gpointer data);

#endif
